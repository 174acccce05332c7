"""The network against itself and against others, in one run: incremental and windowed, attention, ways to run it, other networks.

Every pair is measured in turn, by processor time on a CPU and by wall time on a GPU.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn
from torch.nn import functional as F

from ecgnat_stream.bench.paired import Paired, pair
from ecgnat_stream.bench.report import Peaks, Ratio
from ecgnat_stream.bench.rivals import Missing, conv_recurrent, natten_there, residual, sample
from ecgnat_stream.bench.roofline import Work, attention_work, network_work, roof
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.model import ModelConfig, Predictor, find_checkpoint, load_checkpoint
from ecgnat_stream.model.attention import Backend, choose_backend, neighborhood_attention
from ecgnat_stream.model.predict import fold_batch_norm
from ecgnat_stream.model.preprocess import TOKEN
from ecgnat_stream.model.streaming import can_stream
from ecgnat_stream.signal import LEADS, MODEL_FS, TOKEN_S, Conditioned, Window

__all__ = ["NetworkBench", "network_ratios", "second_of_ecg"]

_WINDOWS = 32
_WINDOW_S = 10.0
_STAGES = ((256, 2, 8), (128, 4, 4), (64, 8, 2), (32, 16, 1))
"""Tokens, heads and dilation of nano's stages for a window of 10 s; 12 channels per head."""
_HEAD_DIM, _KEYS = 12, 13
_STREAMED = "ecgnat-nano-causal"
_TOKENS = 3
"""Tokens of a second, as they are cut with a hop of one: 0.96 s."""


@dataclass(frozen=True, slots=True)
class NetworkBench:
    """How it is measured.

    Parameters
    ----------
    seconds
        For a pair.
    peaks
        Of one thread, or of the device.
    windows
        In a batch.
    beds
        Side by side where a network runs token by token.
    compile
        Also with torch.compile, which takes minutes to compile.
    """

    seconds: float
    device: str
    peaks: Peaks
    model: str
    windows: int = _WINDOWS
    beds: int = 256
    compile: bool = True

    def measure(self, ours: Callable[[], object], other: Callable[[], object]) -> Paired:
        """Measure a pair."""
        if self.device == "cpu":
            return pair(ours, other, self.seconds)
        return pair(_waited(ours), _waited(other), self.seconds, time.perf_counter)


def _waited(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def network_ratios(bench: NetworkBench, missing: list[str]) -> Iterator[Ratio]:
    """Measure one pair after the other; what is not there is added to ``missing``."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for part in (_incremental, _attention, _runtimes, _rivals):
                try:
                    yield from part(bench, missing)
                except (Missing, EcgnatError) as error:
                    missing.append(str(error))
    finally:
        torch.set_num_threads(before)


def second_of_ecg(model: str, mode: str) -> Work | None:
    """Return what the network has to do for a second of one bed's ECG; None for one that reads heartbeats."""
    network, _ = load_checkpoint(find_checkpoint(model))
    if network.needs_beats:
        return None
    window = network_work(network, network.prepare(sample(_WINDOWS), None), windows=_WINDOWS)
    return window * (1 / _WINDOW_S) if mode == "stream" else window


def _incremental(bench: NetworkBench, missing: list[str]) -> Iterator[Ratio]:
    """A second of ECG as the monitor reads it: the new tokens alone, against a window of 10 s at every second."""
    if not can_stream(load_checkpoint(find_checkpoint(_STREAMED))[0]):
        raise Missing(f"{_STREAMED} looks ahead: the comparison of token by token with windows is left out")
    beds, settings = bench.beds, {"name": _STREAMED, "threads": 1, "device": _wish(bench)}
    with (
        Predictor(ModelConfig(**settings, mode="stream")) as stream,
        Predictor(ModelConfig(**settings, mode="window")) as windowed,
    ):
        reader, given = stream.reader(beds), sample(beds).numpy()
        new = [Window(row, 0, _TOKENS * TOKEN, each[:, : _TOKENS * TOKEN], 0, 0) for row, each in enumerate(given)]
        windows = Conditioned(given, MODEL_FS)
        found = bench.measure(lambda: reader.submit(new).result(), lambda: windowed.predict(windows))
        own = _TOKENS * TOKEN_S
        network = load_checkpoint(stream.path)[0]
        window = network_work(network, network.prepare(sample(_WINDOWS), None), windows=_WINDOWS)
        weights = sum(parameter.nbytes for parameter in network.parameters())
        moved = weights / beds + sum(tensor.nbytes for tensor in reader.save(0).values()) + 4 * len(LEADS) * _TOKENS * TOKEN
        step = Work(None if window.flop is None else window.flop / _WINDOW_S, moved / own)
        ours_s, other_s = found.ours_s / own / beds, found.other_s / beds
        yield _ratio(
            "network",
            "a second of ECG, token by token",
            "a window of 10 s every second",
            "ms per bed",
            Paired(1e3 * ours_s, 1e3 * other_s, found.times * own, found.p10 * own, found.p90 * own, found.pairs),
            wanted=8.0,
            roof_=roof(step, bench.peaks, ours_s),
            other_roof=roof(window, bench.peaks, other_s),
            note=f"{beds} beds, {_STREAMED}",
        )


def _wish(bench: NetworkBench) -> Any:
    return "cuda" if bench.device == "cuda" else "cpu"


def _attention(bench: NetworkBench, missing: list[str]) -> Iterator[Ratio]:
    """Neighborhood attention of every stage of a batch, with the back end that is chosen here."""
    device = torch.device(bench.device)
    inputs = [torch.randn(3, bench.windows, tokens, heads, _HEAD_DIM, device=device).unbind(0) for tokens, heads, _ in _STAGES]
    dilations = [dilation for _, _, dilation in _STAGES]
    chosen = choose_backend(device)
    work = Work(0.0, 0.0)
    for tokens, heads, _ in _STAGES:
        each = attention_work(bench.windows, tokens, heads, _HEAD_DIM, _KEYS)
        work = Work((work.flop or 0.0) + (each.flop or 0.0), work.bytes + each.bytes)

    def all_stages(backend: Backend) -> Callable[[], None]:
        def run() -> None:
            for (query, key, value), dilation in zip(inputs, dilations, strict=True):
                neighborhood_attention(query, key, value, _KEYS, dilation, False, backend)

        return run

    def dense() -> None:
        for query, key, value in inputs:
            F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))

    against: list[tuple[str, Callable[[], None], float | None]] = [("dense attention, every token to all", dense, 1.0)]
    for backend in get_args(Backend):
        if backend == chosen:
            continue
        try:
            if backend == "natten":
                natten_there()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                all_stages(backend)()
        except (Missing, RuntimeError, NotImplementedError, ValueError) as error:
            missing.append(str(error) if isinstance(error, Missing) else f"attention {backend} does not run here: {error}")
            continue
        against.append(
            (f"back end {backend}", all_stages(backend), 15.0 if backend == "natten" and bench.device == "cpu" else None)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for what, call, wanted in against:
            found = bench.measure(all_stages(chosen), call)
            yield _ratio(
                "attention", f"neighborhood attention, {chosen}", what, "ms", _scaled(found, 1e3), wanted=wanted,
                roof_=roof(work, bench.peaks, found.ours_s), note=f"4 stages, {bench.windows} windows",
            )  # fmt: skip


def _runtimes(bench: NetworkBench, missing: list[str]) -> Iterator[Ratio]:
    """Ways to run the same network, against running it eagerly."""
    windows = Conditioned(sample(bench.windows).numpy(), MODEL_FS)
    settings = {"name": bench.model, "threads": 1, "device": _wish(bench), "max_batch": bench.windows, "mode": "window"}
    ways = {"compiled": {"compile": "on" if bench.compile else "auto"}, "ONNX": {"runtime": "onnx"}}
    with Predictor(ModelConfig(**settings | {"compile": "off"})) as eager:
        for name, way in ways.items():
            try:
                with Predictor(ModelConfig(**settings | way)) as other:
                    if other.runtime.name == "eager":
                        missing.append(f"{name}: it runs eagerly: {other.runtime.why}")
                        continue
                    found = bench.measure(lambda o=other: o.predict(windows), lambda: eager.predict(windows))  # type: ignore[misc]
                    how = f"{other.runtime.name}: {other.runtime.why}"
            except (EcgnatError, ImportError, RuntimeError) as error:
                missing.append(f"{name}: {str(error).splitlines()[0]}")
                continue
            yield _ratio(
                "runtime", f"the network, {name}", "eager", "ms per window", _scaled(found, 1e3 / bench.windows),
                note=f"batches of {bench.windows}; {how}",
            )  # fmt: skip


def _rivals(bench: NetworkBench, missing: list[str]) -> Iterator[Ratio]:
    """A window of 10 s, twelve leads, through our network and through others."""
    windows = sample(bench.windows).to(bench.device)
    network, _ = load_checkpoint(find_checkpoint(bench.model))
    ours = fold_batch_norm(network).to(bench.device)
    prepared = ours.prepare(windows, None) if not ours.needs_beats else None
    if prepared is None:
        raise Missing(f"{bench.model} reads heartbeats: the comparison with other networks is left out")
    work = network_work(ours, prepared, windows=bench.windows)
    for name, build, wanted in (("torch_ecg's CRNN", conv_recurrent, 2.0), ("xresnet1d101", residual, None)):
        try:
            other, prepare = build()
        except Missing as error:
            missing.append(str(error))
            continue
        other = other.to(bench.device)
        given = prepare(windows)
        found = bench.measure(lambda: ours(prepared), lambda o=other, g=given: o(g))  # type: ignore[misc]
        yield _ratio(
            "networks", f"{bench.model}, {_millions(ours)}", f"{name}, {_millions(other)}", "ms per window",
            _scaled(found, 1e3 / bench.windows), wanted=wanted, roof_=roof(work, bench.peaks, found.ours_s / bench.windows),
            other_roof=roof(network_work(other, given, windows=bench.windows), bench.peaks, found.other_s / bench.windows),
            note=f"12 leads, 100 Hz, batches of {bench.windows}",
        )  # fmt: skip


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"


def _scaled(found: Paired, factor: float) -> Paired:
    return Paired(found.ours_s * factor, found.other_s * factor, found.times, found.p10, found.p90, found.pairs)


def _ratio(
    group: str, what: str, against: str, unit: str, found: Paired, *, wanted: float | None = None,
    roof_: Any = None, other_roof: Any = None, note: str = "",
) -> Ratio:  # fmt: skip
    return Ratio(
        group=group, what=what, against=against, unit=unit, ours=round(found.ours_s, 5), other=round(found.other_s, 5),
        times=round(found.times, 3), p10=round(found.p10, 3), p90=round(found.p90, 3), pairs=found.pairs, wanted=wanted,
        roof=roof_, other_roof=other_roof, note=note,
    )  # fmt: skip
