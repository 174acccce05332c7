"""The running model: windows of many beds in, probabilities out.

One worker thread runs the network, so that :meth:`Predictor.submit` never blocks the event loop. Batches are padded to a few
fixed sizes, so that a compiled graph never compiles again in service. Nothing is dropped here: the caller decides what is late.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ecgnat_stream.errors import CheckpointError, ConfigError
from ecgnat_stream.model.attention import Backend, choose_backend
from ecgnat_stream.model.attention_choice import choose_attention
from ecgnat_stream.model.beat_reading import BeatReader
from ecgnat_stream.model.beat_streaming import StreamingBeats
from ecgnat_stream.model.catalogue import find_checkpoint, reading_mode
from ecgnat_stream.model.checkpoint import load_checkpoint
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.model.ecgnat import EcgNat, EcgNatConfig
from ecgnat_stream.model.network import BeatNetwork, Network, NetworkOutput
from ecgnat_stream.model.prediction import Prediction
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.model.reading import Reader, TokenReader, WindowReader
from ecgnat_stream.model.runtime import Runtime, StepRun, WindowRun, choose_runtime, choose_step_runtime, eager
from ecgnat_stream.model.streaming import StepNetwork, StreamingEcgNat
from ecgnat_stream.model.tokens import check_beats
from ecgnat_stream.signal import LEADS, MODEL_FS, TOKEN_S, Conditioned, Window

__all__ = ["Prediction", "Predictor", "try_loading"]


def try_loading(config: ModelConfig) -> None:
    """Load a network and forget it again: whatever is wrong with it, or with how it is to run, is raised here.

    Raises
    ------
    ConfigError, CheckpointError
        As :class:`Predictor`.
    """
    choose_device(config.device)
    limit_threads(config)
    load_checkpoint(find_checkpoint(config.name))
    if config.runtime == "onnx":  # nothing is compiled, and its file may be missing
        with Predictor(config):
            pass


class Predictor:
    """Load a checkpoint, warm up, predict. Use as a context manager, or call :meth:`close`."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        self.config = config or ModelConfig()
        limit_threads(self.config)
        self.path = find_checkpoint(self.config.name)
        network, self.card = load_checkpoint(self.path)
        self.needs_beats = network.needs_beats
        self.device = choose_device(self.config.device)
        self.parameters = sum(p.numel() for p in network.parameters())
        self._network = fold_batch_norm(network).to(self.device)
        if self.device.type == "cuda" and not network.needs_beats:
            length = round(self.config.window_s * MODEL_FS)
            among: tuple[Backend, ...] | None = ("masked", "natten") if self.config.compile == "off" else None  # flex compiles
            x = self._network.prepare(torch.zeros(8, len(LEADS), length, device=self.device))
            choose_attention(self._network, x, among)
        self.mode = reading_mode(self.config)
        streams = self.mode == "stream"
        self._step = StepNetwork(self._network) if streams and isinstance(self._network, EcgNat) else None
        self._by_beats = self._network if streams and isinstance(self._network, BeatNetwork) else None
        self._steps: Runtime[StepRun] | None = None
        if self._step is not None:
            self._steps = choose_step_runtime(self.config, self.path, self._step, self.device)
            self._windows = eager(self._network, "the network goes token by token")
        else:
            self._windows = choose_runtime(self.config, self.path, self._network, self.device)
        self.buckets = _buckets(self.config.max_batch)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._warm_up()

    @property
    def runtime(self) -> Runtime[StepRun] | Runtime[WindowRun]:
        """What runs the network, in :attr:`mode`."""
        return self._windows if self._steps is None else self._steps

    @property
    def rhythm_classes(self) -> tuple[str, ...]:
        """Names of the last axis of :attr:`Prediction.rhythm`."""
        return self.card.model.rhythm_classes

    @property
    def window_classes(self) -> tuple[str, ...]:
        """Names of the last axis of :attr:`Prediction.window`."""
        return self.card.model.window_classes

    def describe(self) -> str:
        """Say in one line what runs."""
        own = isinstance(self.card.model, EcgNatConfig)  # neighborhood attention has several back ends
        attention = f"{choose_backend(self.device)} attention, " if own else ""
        how = f"{self.runtime.name} ({self.runtime.why})"
        if self._step is not None:
            attention = "token by token, "
        if self._by_beats is not None:
            attention, how = "beat by beat, ", "eager"
        return (
            f"{self.path.name}: {self.card.model.__struct_config__.tag} {self.card.model.name}, "
            f"{self.parameters / 1e6:.2f} M parameters, {attention}{how}, "
            f"{self.device}, {torch.get_num_threads()} threads"
        )

    def submit(self, windows: Conditioned, beats: NDArray[np.float32] | None = None) -> Future[Prediction]:
        """Predict in the worker thread; see :meth:`predict`."""
        if not isinstance(windows, Conditioned):
            raise TypeError(
                "windows have to carry their rate: condition_samples() of the raw samples gives such, or Conditioned(array, fs) "
                "of what is conditioned already"
            )
        # Copies: the caller may write into its own while this one waits.
        given = np.array(windows.at(MODEL_FS).samples, np.float32)
        beats = None if beats is None else np.array(beats, np.float32, order="C")
        _check_windows(given, beats, self.needs_beats)
        return self._worker.submit(self._predict, given, beats)

    def predict(self, windows: Conditioned, beats: NDArray[np.float32] | None = None) -> Prediction:
        """Predict and wait.

        Parameters
        ----------
        windows
            ``(B, 12, T)`` mV with their rate, NaN = missing. A window of NaN alone gives finite probabilities without meaning:
            mask it.
        beats
            ``(B, N)`` R peaks in samples at 100 Hz from the start of the window, ascending, NaN behind the last. A network that
            :attr:`needs_beats` takes a window without any as one in which no beat was found; others do not look at them.

        Raises
        ------
        TypeError
            For a bare array, which does not say its rate.
        ValueError
            For any other shape or rate, without beats where the network needs them, or for beats that are not ascending.
        """
        return self.submit(windows, beats).result()

    def reader(self, beds: int) -> Reader:
        """Return what reads the signal of a ward's beds, in :attr:`mode`; token by token or beat by beat, it remembers them."""
        if self._by_beats is not None:
            return BeatReader(StreamingBeats(self._by_beats, beds), self._worker.submit, self._said, self.config.max_batch)
        if self._step is None or self._steps is None:
            return WindowReader(self)
        graphs = self.buckets if self.device.type == "cuda" else None
        past = torch.float16 if self.config.past == "float16" else torch.float32
        stream = StreamingEcgNat(self._step, beds, run=self._steps.run, graphs=graphs, kept=past)
        fixed = self._steps.fixed or graphs is not None
        return TokenReader(stream, self._worker.submit, self._tokens_said, self.buckets, fixed=fixed)

    def close(self) -> None:
        """Finish what was submitted and end the worker."""
        self._worker.shutdown(wait=True)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _predict(self, windows: NDArray[np.float32], beats: NDArray[np.float32] | None) -> Prediction:
        began = time.perf_counter()
        cuts = [slice(at, at + self.config.max_batch) for at in range(0, len(windows), self.config.max_batch)]
        parts = [self._batch(windows[cut], None if beats is None else beats[cut]) for cut in cuts]
        rhythm, beat, window, screen, tiled = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Prediction(rhythm, window, screen, beat, tiled, TOKEN_S, time.monotonic_ns(), time.perf_counter() - began)

    @torch.inference_mode()
    def _batch(self, windows: NDArray[np.float32], beats: NDArray[np.float32] | None) -> tuple[NDArray[Any], ...]:
        count = len(windows)
        bucket = next(size for size in self.buckets if size >= count) if self._windows.fixed else count
        peaks = None if beats is None else _padded(beats, bucket).to(self.device)
        output, tiled = self._windows.run(_padded(windows, bucket).to(self.device), peaks)
        tiled = torch.zeros(count, dtype=torch.bool) if tiled is None else tiled[:count]
        return *self._said(NetworkOutput(*(logits[:count] for logits in output))), tiled.cpu().numpy()

    @torch.inference_mode()
    def _said(self, output: NetworkOutput) -> tuple[NDArray[np.float32], ...]:
        """Return the probabilities of rhythm, beats, window and screening."""
        rhythm, beat, window, screen = (logits.float() for logits in output)
        probabilities = (
            *self._probable(rhythm, beat),
            (window / self.card.calibration.window_temperature).sigmoid(),
            (screen / self.card.calibration.screen_temperature).softmax(dim=-1),
        )
        return tuple(array.cpu().numpy() for array in probabilities)

    def _probable(self, rhythm: Tensor, beat: Tensor) -> tuple[Tensor, Tensor]:
        beats = torch.cat([beat[..., :2].sigmoid(), beat[..., 2:].softmax(dim=-1)], dim=-1)
        return calibrate(rhythm, self.card.calibration.temperature, self.card.calibration.bias), beats

    @torch.inference_mode()
    def _tokens_said(self, rhythm: Tensor, beat: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rhythms, beats = self._probable(rhythm.float(), beat.float())
        return rhythms.cpu().numpy(), beats.cpu().numpy()

    def _warm_up(self) -> None:
        """Run every batch size once where graphs have to be compiled; else one window, for masks and first allocations."""
        if self._step is not None:
            self._warm_up_steps()
            return
        length = round(self.config.window_s * MODEL_FS)
        for size in self.buckets if self._windows.fixed else (1,):
            beats = np.arange(50, length, 80, dtype=np.float32)
            windows = Conditioned(np.zeros((size, len(LEADS), length), np.float32), MODEL_FS)
            said = self.predict(windows, np.tile(beats, (size, 1)))
            self._check_finite(said.rhythm, said.window, said.screen, said.beat)

    def _warm_up_steps(self) -> None:
        reader = self.reader(self.buckets[-1])
        for size in self.buckets if self.runtime.fixed else (1,):
            samples = np.zeros((len(LEADS), TOKEN), np.float32)
            said = reader.submit([Window(row, 0, TOKEN, samples, 0, 0) for row in range(size)]).result()
            self._check_finite(said.rhythm, said.beat)

    def _check_finite(self, *said: NDArray[np.float32]) -> None:
        if not all(np.isfinite(part).all() for part in said):
            raise CheckpointError(f"{self.path}: the network's answers are not finite: its weights are too large")


def calibrate(logits: Tensor, temperature: float, bias: tuple[float, ...]) -> Tensor:
    """Turn rhythm logits ``(..., C)`` into probabilities; see :class:`ecgnat_stream.model.checkpoint.Calibration`."""
    logits = logits / temperature
    if bias:
        logits = logits + torch.tensor(bias, device=logits.device)
    return logits.softmax(dim=-1)


def fold_batch_norm(network: Network) -> Network:
    """Fold every BatchNorm into the convolution before it, in place; eval mode only, the outputs stay the same."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for at in range(len(module) - 1):
            conv, norm = module[at], module[at + 1]
            if isinstance(conv, nn.Conv1d) and isinstance(norm, nn.BatchNorm1d):
                module[at], module[at + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network


def limit_threads(config: ModelConfig) -> None:
    """Set the threads before anything is computed: threads that wait for each other on busy cores cost more than they bring."""
    if config.threads:
        torch.set_num_threads(config.threads)


def _padded(array: NDArray[np.float32], rows: int) -> Tensor:
    """Return the rows as a tensor with rows of NaN added."""
    padded = torch.full((rows, *array.shape[1:]), torch.nan)
    padded[: len(array)] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return padded


def choose_device(device: str) -> torch.device:
    """Return what a setting stands for.

    Raises
    ------
    ConfigError
        Without the CUDA device that is asked for.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("model.device is 'cuda', but torch finds no CUDA device; use 'auto' or 'cpu'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _buckets(max_batch: int) -> tuple[int, ...]:
    sizes = [1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch]
    return (*sizes, max_batch)


def _check_windows(windows: NDArray[np.float32], beats: NDArray[np.float32] | None, needs_beats: bool) -> None:
    if windows.ndim != 3 or windows.shape[1] != len(LEADS) or 0 in windows.shape:
        raise ValueError(f"want windows (B, {len(LEADS)}, T), none of them 0, got {windows.shape}")
    if beats is None and needs_beats:
        raise ValueError("this network reads heartbeats: give R peaks (B, N) too, see ecgnat_stream.beats.find_beats")
    if beats is not None and (beats.ndim != 2 or len(beats) != len(windows)):
        raise ValueError(f"want beats ({len(windows)}, N), got {beats.shape}")
    if beats is not None and needs_beats:
        check_beats(torch.from_numpy(beats))
