"""Check and measure the networks on a GPU, part by part, in less than six minutes; ``scripts/gpu-check`` runs this.

Each part has its time. Parts run in a process of their own: what fails, hangs or loses the device ends its part, and the next one
begins in a fresh process. All of it runs on a CPU too (``--device cpu --quick``), where a function stands for its graph.

Needs torch, numpy, msgspec and safetensors; no data and no checkpoint: weights are random, signals are noise.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ecgnat_stream.model.attention import Backend, neighborhood_attention
from ecgnat_stream.model.attention_choice import LayerShape, choose_attention, measure_backends, seconds_per_call
from ecgnat_stream.model.beat_streaming import StreamingBeats
from ecgnat_stream.model.cuda import GraphedBatches, Input, graphed_step
from ecgnat_stream.model.ecgnat import EcgNat
from ecgnat_stream.model.network import BeatNetwork, Network, NetworkOutput
from ecgnat_stream.model.networks import build, configured
from ecgnat_stream.model.predict import fold_batch_norm
from ecgnat_stream.model.preprocess import TOKEN, prepare
from ecgnat_stream.model.streaming import StepNetwork, StreamingEcgNat
from ecgnat_stream.signal import LEADS, MODEL_FS, TOKEN_S

NETWORKS = ("ecgnat", "ecgnat-causal", "ecgnat-hug", "beatnet", "clear")
EXACT = 1e-4
"""Largest difference of a probability in float32 between device and CPU."""
ROUGH = 0.1
"""The same in bfloat16: more than that is a mistake, not rounding."""
_ALL_PARTS_S = 345.0
_START_S = 45.0
"""What a process may take to begin: importing torch, and the device's first call."""


@dataclass(frozen=True)
class Row:
    """One figure; ``ok`` is None where nothing is demanded of it."""

    what: str
    value: float | str
    unit: str = ""
    ok: bool | None = None


@dataclass(frozen=True)
class Setting:
    """Where and how thoroughly, and until when the present part may take."""

    device: torch.device
    quick: bool
    until: float

    def left(self, seconds: float = 1.0) -> bool:
        """Whether there is time for something that takes so many seconds; a quick run leaves nothing out."""
        return self.quick or time.monotonic() + seconds < self.until


Part = Callable[[Setting], Iterator[Row]]


def network_of(name: str, size: str = "nano") -> Network:
    """Return a network with random weights, the same ones everywhere, ready to predict."""
    torch.manual_seed(1)
    arch, _, causal = name.partition("-causal")
    network = build(configured(arch, size, is_causal=bool(causal) or name.endswith("-causal")))
    for parameter in network.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    return fold_batch_norm(network.eval())


def windows_of(count: int, samples: int = 10 * MODEL_FS) -> tuple[Tensor, Tensor]:
    """Return windows ``(B, 12, T)`` of noise with bumps, some leads missing, and the places of the bumps ``(B, N)``."""
    generator = torch.Generator().manual_seed(2)
    peaks = torch.arange(60, samples - 20, 83).float() + 5 * torch.rand(count, 1, generator=generator)
    time_ = torch.arange(samples)
    shape = torch.exp(-0.5 * ((time_ - peaks[..., None]) / 3) ** 2).sum(dim=1)
    x = shape[:, None] * (0.4 + torch.rand(count, 12, 1, generator=generator))
    x = x + 0.05 * torch.randn(count, 12, samples, generator=generator)
    x[::2, 2:] = torch.nan
    return x, peaks


@contextmanager
def precise() -> Iterator[None]:
    """Switch tf32 off, so that float32 is float32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def farthest(said: NetworkOutput, expected: NetworkOutput) -> float:
    """Return the largest difference of a probability of any head."""
    pairs = [
        (said.rhythm.softmax(-1), expected.rhythm.softmax(-1)),
        (said.beat[..., :2].sigmoid(), expected.beat[..., :2].sigmoid()),
        (said.beat[..., 2:].softmax(-1), expected.beat[..., 2:].softmax(-1)),
        (said.window.sigmoid(), expected.window.sigmoid()),
        (said.screen.softmax(-1), expected.screen.softmax(-1)),
    ]
    return max(float((mine.float().cpu() - theirs).abs().max()) for mine, theirs in pairs if mine.numel())


def settle(device: torch.device) -> None:
    """Wait until a device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def what_runs(at: Setting) -> Iterator[Row]:
    """Say what is installed, and on what it runs."""
    cuda = at.device.type == "cuda"
    yield Row("device", torch.cuda.get_device_name(at.device) if cuda else "CPU")
    if cuda:
        yield Row("memory", torch.cuda.get_device_properties(at.device).total_memory / 2**30, "GiB")
        yield Row("CUDA", str(torch.version.cuda))
    yield Row("torch", torch.__version__)
    for name in ("natten", "triton"):
        try:
            yield Row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Row(name, "not installed")


def windows_equal(at: Setting) -> Iterator[Row]:
    """Every network says of windows what it says on the CPU."""
    for name in NETWORKS:
        network = network_of(name)
        windows, beats = windows_of(3 if at.quick else 32)
        with torch.inference_mode(), precise():
            expected = network(network.prepare(windows, beats))
            network.to(at.device)
            x = network.prepare(windows.to(at.device), beats.to(at.device))
            off = farthest(network(x), expected)
            yield Row(f"{name}: float32 off by", off, "", off <= EXACT)
            with torch.autocast(at.device.type, torch.bfloat16):
                off = farthest(network(x), expected)
            yield Row(f"{name}: bfloat16 off by", off, "", off <= ROUGH)


def steps_equal(at: Setting) -> Iterator[Row]:
    """Token by token and beat by beat, through graphs, beds say what the CPU says of the whole record."""
    network = network_of("ecgnat-causal")
    assert isinstance(network, EcgNat)
    beds, tokens = (3, 12) if at.quick else (7, 60)
    x, _ = windows_of(beds, TOKEN * tokens)
    with torch.inference_mode():
        expected = network(prepare(x, "fixed")).rhythm.softmax(-1)
    forms: list[tuple[str, torch.dtype, torch.dtype | None, float]] = [
        ("float32", torch.float32, None, EXACT),
        ("bfloat16, float32 kept", torch.float32, torch.bfloat16, ROUGH),
        ("bfloat16", torch.bfloat16, torch.bfloat16, ROUGH),
    ]
    with precise():
        for name, kept, autocast, most in forms:
            stream = StreamingEcgNat(network.to(at.device), beds, kept=kept)
            graphs = graphed_step(stream.network, stream.state, (1, 2, 8), (len(LEADS), TOKEN), autocast=autocast)
            off = _play(graphs, x, expected)
            yield Row(f"ecgnat-causal: {name} off by", off, "", off <= most)
    for arch in ("beatnet", "clear"):
        with precise():
            off = _beats_off(arch, at)
        yield Row(f"{arch} beat by beat: float32 off by", off, "", off <= EXACT)


def _play(graphs: GraphedBatches, x: Tensor, expected: Tensor) -> float:
    """Let beds take their tokens at different phases, two batches on their way; return how far off they are."""
    taken, waiting = [0] * len(x), []
    rng, tokens = np.random.default_rng(0), expected.shape[1]
    while min(taken) < tokens:
        rows = [row for row in range(len(x)) if taken[row] < tokens and rng.random() < 0.7]
        if not rows:
            continue
        parts = torch.stack([x[row, :, TOKEN * taken[row] : TOKEN * (taken[row] + 1)] for row in rows])
        waiting.append((rows, [taken[row] for row in rows], graphs.submit(rows=torch.tensor(rows) + 1, samples=parts)))
        for row in rows:
            taken[row] += 1
    off = 0.0
    for rows, places, ticket in waiting:
        said = ticket.result()[0][:, 0].softmax(-1)
        off = max(off, float((said - expected[rows, places]).abs().max()))
    return off


def _beats_off(arch: str, at: Setting) -> float:
    network = network_of(arch)
    assert isinstance(network, BeatNetwork)
    x, peaks = windows_of(3, 1500)
    rows = torch.arange(3)
    said: list[NetworkOutput] = []
    for device in (torch.device("cpu"), at.device):
        stream = StreamingBeats(network.to(device), 3)
        for begin in range(0, 1500, 100):
            now = torch.where((peaks >= begin) & (peaks < begin + 100), peaks, torch.nan).sort(dim=1).values
            stream.take(rows, x[:, :, begin : begin + 100], now)
        said.append(stream.read(rows))
    return farthest(said[1], said[0])


def attention_equals(at: Setting) -> Iterator[Row]:
    """Each back end equals the reference; which one is the fastest for the layers of a window."""
    length = 256
    names: tuple[Backend, ...] = ("masked", "banded", "flex", "natten")
    for dilation, is_causal in ((1, False), (8, False), (8, True)):
        query, key, value = torch.randn(3, 2, length, 2, 12, generator=torch.Generator().manual_seed(0)).unbind(0)
        expected = neighborhood_attention(query, key, value, 13, dilation, is_causal, "reference")
        moved = [part.to(at.device) for part in (query, key, value)]
        for name in names:
            form = f"{name}, dilation {dilation}{', causal' if is_causal else ''}"
            try:
                with precise(), torch.inference_mode():
                    said = neighborhood_attention(*moved, 13, dilation, is_causal, name)
            except ImportError as error:
                yield Row(form, f"left out: {error}")
                continue
            off = float((said.cpu() - expected).abs().max())
            yield Row(f"{form}: off by", off, "", off <= EXACT)
    batch, measured_names = (4, names[:2]) if at.quick else (1024, names)
    shapes = [LayerShape(batch, 256 >> stage, 2 << stage, 12, 13, 8 >> stage, False) for stage in range(1 if at.quick else 4)]
    for shape in shapes:
        for dtype in (torch.float32, torch.bfloat16):
            if not at.left(10):
                return
            measured = measure_backends(shape, at.device, dtype, measured_names, calls=2 if at.quick else 10)
            for name, seconds in measured.items():
                mark = " (fastest)" if seconds == min(measured.values()) else ""
                yield Row(f"{name}, {shape.length} tokens, {str(dtype)[6:]}{mark}", 1e6 * seconds / batch, "us/window")


def graphs_captured(at: Setting) -> Iterator[Row]:
    """A captured step equals the plain one, and how much faster it is."""
    network = network_of("ecgnat-causal")
    assert isinstance(network, EcgNat)
    sizes = (1, 4) if at.quick else (1, 64, 1024, 8192)
    step = StepNetwork(network.to(at.device))
    for size in sizes:
        if not at.left(15):
            return
        one, other = (StreamingEcgNat(step, size) for _ in range(2))
        graphs = graphed_step(step, one.state, (size,), (len(LEADS), TOKEN))
        rows, off = torch.arange(size), 0.0
        for k in range(3):
            samples = torch.randn(size, len(LEADS), TOKEN, generator=torch.Generator().manual_seed(k))
            said, plain = graphs.submit(rows=rows + 1, samples=samples).result(), other.step(rows, samples)
            off = max(off, *(float((a - b.cpu()).abs().max()) for a, b in zip(said, plain, strict=False)))
        yield Row(f"{size} beds: graph off eager by", off, "", off <= EXACT)
        calls = 3 if at.quick else 20
        samples = samples.to(at.device)
        graph_s = seconds_per_call(lambda: graphs.replay(size), at.device, calls)  # noqa: B023 - called at once
        eager_s = seconds_per_call(lambda: other.step(rows, samples), at.device, calls)  # noqa: B023
        yield Row(f"{size} beds: eager step", 1e3 * eager_s, "ms")
        yield Row(f"{size} beds: graph alone", 1e3 * graph_s, "ms")


def peaks_of(at: Setting, dtype: torch.dtype) -> tuple[float, float]:
    """Return measured peaks: FLOP/s of a large matrix product, bytes/s of a large copy (read and written)."""
    size, length = (256, 1 << 20) if at.quick else (8192, 1 << 31)
    a, b = torch.randn(2, size, size, device=at.device, dtype=dtype).unbind(0)
    product_s = seconds_per_call(lambda: a @ b, at.device, 5)
    source = torch.zeros(length, dtype=torch.uint8, device=at.device)
    target = torch.empty_like(source)
    copy_s = seconds_per_call(lambda: target.copy_(source), at.device, 5)
    return 2 * size**3 / product_s, 2 * length / copy_s


def flops_of(run: Callable[[], object]) -> int:
    """Count the operations of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return int(counter.get_total_flops())


def roofline(beds: int, stream: StreamingEcgNat, flop_s: float, byte_s: float) -> tuple[float, str]:
    """Return the least seconds that a step may take, and what bounds it: each product once, each byte of the past read once."""
    network = network_of("ecgnat-causal")
    assert isinstance(network, EcgNat)
    one = StreamingEcgNat(network, 1)
    samples = torch.zeros(1, len(LEADS), TOKEN)
    flops = beds * flops_of(lambda: one.step(torch.tensor([0]), samples))
    moved = beds * (stream.state_bytes + samples.nbytes) + sum(parameter.nbytes for parameter in network.parameters())
    products_s, memory_s = flops / flop_s, moved / byte_s
    return max(products_s, memory_s), "memory" if memory_s > products_s else "products"


def beds_in_real_time(at: Setting) -> Iterator[Row]:
    """Steps of 0.32 s of many beds, with all copies: how many in real time, how late the slowest, how far from the roofline."""
    network = network_of("ecgnat-causal")
    assert isinstance(network, EcgNat)
    for dtype, autocast in ((torch.float32, None), (torch.bfloat16, torch.bfloat16)):
        flop_s, byte_s = peaks_of(at, dtype)
        name = str(dtype)[6:]
        yield Row(f"{name}: matrix product", flop_s / 1e12, "TFLOP/s")
        yield Row(f"{name}: memory", byte_s / 1e9, "GB/s")
        for beds in (1, 16) if at.quick else (1, 1_000, 10_000, 100_000):
            if not at.left(20):
                return
            yield from _beds(at, network, beds, name, dtype, autocast, flop_s, byte_s)


def _beds(
    at: Setting,
    network: EcgNat,
    beds: int,
    name: str,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
    flop_s: float,
    byte_s: float,
) -> Iterator[Row]:
    gc.collect()  # what the beds before have left on the device
    stream = StreamingEcgNat(network.to(at.device), beds, kept=dtype)
    sizes = sorted({min(beds, 2048), min(beds, 8192)})
    size = sizes[-1]
    graphs = graphed_step(stream.network, stream.state, sizes, (len(LEADS), TOKEN), autocast=autocast)
    samples = 0.3 * torch.randn(beds, len(LEADS), TOKEN, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(1, beds + 1)

    def everyone() -> None:
        cuts = [slice(begin, begin + size) for begin in range(0, beds, size)]
        for ticket in [graphs.submit(rows=rows[cut], samples=samples[cut]) for cut in cuts]:
            ticket.result()

    everyone()
    rounds, until = [], time.monotonic() + (0.3 if at.quick else 5.0)
    while len(rounds) < 1000 and (len(rounds) < 3 or time.monotonic() < until):
        began = time.perf_counter()
        everyone()
        rounds.append(time.perf_counter() - began)
    p50, p99 = np.percentile(rounds, [50, 99])
    yield Row(f"{name}, {beds:,} beds: step p50", 1e3 * float(p50), "ms")
    late = None if at.device.type == "cpu" or beds > 10_000 else bool(p99 <= 0.05)
    yield Row(f"{name}, {beds:,} beds: step p99 ({len(rounds)} steps)", 1e3 * float(p99), "ms", late)
    held = None if at.device.type == "cpu" else bool(p99 <= TOKEN_S)
    yield Row(f"{name}, {beds:,} beds: as many in real time", beds * TOKEN_S / float(p50), "beds", held)
    graph_s = seconds_per_call(lambda: graphs.replay(size), at.device, 3 if at.quick else 10)
    bound, side = roofline(size, stream, flop_s, byte_s)
    yield Row(f"{name}, {size:,} beds: graph alone", 1e3 * graph_s, "ms")
    yield Row(f"{name}, {size:,} beds: of the roofline ({side})", 100 * bound / graph_s, "%")


def steps_compiled(at: Setting) -> Iterator[Row]:
    """The step by a compiler and a graph: does it say the same, and how near to the roofline is it."""
    network = network_of("ecgnat-causal")
    assert isinstance(network, EcgNat)
    step = StepNetwork(network.to(at.device))
    compiler = {"backend": "eager"} if at.device.type == "cpu" else {}  # a CPU needs a C++ compiler, and a minute
    beds = 2 if at.quick else 8192
    for dtype, autocast in ((torch.float32, None),) if at.quick else ((torch.float32, None), (torch.bfloat16, torch.bfloat16)):
        if not at.left(25):
            return
        torch.compiler.reset()
        plain, stream = (StreamingEcgNat(step, beds, kept=dtype) for _ in range(2))
        compiled = torch.compile(step, dynamic=False, **compiler)  # type: ignore[call-overload]
        graphs = graphed_step(compiled, stream.state, (beds,), (len(LEADS), TOKEN), autocast=autocast)
        rows, name, off = torch.arange(beds), str(dtype)[6:], 0.0
        for k in range(3):
            samples = torch.randn(beds, len(LEADS), TOKEN, generator=torch.Generator().manual_seed(k))
            said = graphs.submit(rows=rows + 1, samples=samples).result()[0].softmax(-1)
            with torch.autocast(at.device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                expected = plain.step(rows, samples).rhythm.float().softmax(-1)
            off = max(off, float((said - expected.cpu()).abs().max()))
        yield Row(f"{name}: compiled off eager by", off, "", off <= (EXACT if autocast is None else ROUGH))
        alone = seconds_per_call(lambda: graphs.replay(beds), at.device, 2 if at.quick else 10)  # noqa: B023
        bound, side = roofline(beds, stream, *peaks_of(at, dtype))
        yield Row(f"{name}, {beds:,} beds: compiled graph alone", 1e3 * alone, "ms")
        yield Row(f"{name}, {beds:,} beds: of the roofline ({side})", 100 * bound / alone, "%")


def windows_per_second(at: Setting) -> Iterator[Row]:
    """Windows of 10 s by graphs, with all copies, each layer with the attention that is the fastest here."""
    for network_size in ("nano",) if at.quick else ("nano", "tiny"):
        for dtype in (None, torch.bfloat16):
            if not at.left(15):
                return
            network = network_of("ecgnat", network_size).to(at.device)
            size = 2 if at.quick else 1024
            windows, _ = windows_of(size)
            among: tuple[Backend, ...] = ("banded", "masked") if at.device.type == "cpu" else ("masked", "natten")
            chosen = choose_attention(network, network.prepare(windows.to(at.device)), among, dtype)

            def run(windows: Tensor, network: Network = network) -> tuple[Tensor, ...]:
                return tuple(network(network.prepare(windows)))

            inputs = {"windows": Input(tuple(windows.shape[1:]), torch.float32, float("nan"))}
            graphs = GraphedBatches(run, inputs, (size,), at.device, autocast=dtype)
            calls, began = 2 if at.quick else 20, 0.0
            for _ in range(2):  # the first time does not count
                began = time.perf_counter()
                for ticket in [graphs.submit(windows=windows) for _ in range(calls)]:
                    ticket.result()
            each = (time.perf_counter() - began) / calls
            name = f"{network_size}, {'float32' if dtype is None else 'bfloat16'}"
            yield Row(f"{name}: windows, batches of {size}", size / each, "windows/s")
            yield Row(f"{name}: attention", ", ".join(sorted({str(backend) for backend in chosen.values()})))
            flop_s, _ = peaks_of(at, dtype or torch.float32)
            alone = seconds_per_call(lambda g=graphs, n=size: g.replay(n), at.device, 3)  # type: ignore[misc]
            one = network_of("ecgnat", network_size)
            flops = size * flops_of(lambda n=one: n(n.prepare(windows[:1])))  # type: ignore[misc]  # noqa: B023
            yield Row(f"{name}: of the matrix products' peak", 100 * flops / alone / flop_s, "%")


def training_steps(at: Setting) -> Iterator[Row]:
    """Steps of training in bfloat16 and in float32, forward, backward and AdamW."""
    for network_size in ("nano",) if at.quick else ("nano", "tiny"):
        for dtype in (torch.bfloat16, None):
            if not at.left(10):
                return
            torch.manual_seed(0)
            network = build(configured("ecgnat", network_size)).to(at.device).train()
            fused = at.device.type == "cuda"
            optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=fused)
            batch = 2 if at.quick else 256
            windows = windows_of(batch)[0].to(at.device)
            labels = torch.randint(0, 8, (batch, 32), device=at.device)
            losses: list[Tensor] = []

            def step() -> None:
                with torch.autocast(at.device.type, torch.bfloat16, enabled=dtype is not None):  # noqa: B023
                    said = network(network.prepare(windows))  # noqa: B023
                loss = F.cross_entropy(said.rhythm.float().flatten(0, 1), labels.flatten())  # noqa: B023
                optimiser.zero_grad()  # noqa: B023
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()  # noqa: B023
                losses.append(loss.detach())  # noqa: B023

            seconds = seconds_per_call(step, at.device, 1 if at.quick else 10)
            name = f"{network_size}, {'float32' if dtype is None else 'bfloat16'}"
            yield Row(f"{name}: training", batch / seconds, "windows/s", bool(torch.isfinite(torch.stack(losses)).all()))


PARTS: dict[str, tuple[Part, float]] = {
    "what runs": (what_runs, 8.0),
    "windows equal": (windows_equal, 25.0),
    "steps equal": (steps_equal, 25.0),
    "graphs": (graphs_captured, 35.0),
    "beds": (beds_in_real_time, 75.0),
    "compiled": (steps_compiled, 60.0),
    "attention": (attention_equals, 40.0),
    "windows": (windows_per_second, 35.0),
    "training": (training_steps, 30.0),
}
"""Name, function, and seconds that it may take."""


def child(names: list[str], device: str, quick: bool, out: Any) -> None:
    """Run parts; write a line of JSON for each. End after a part that failed: the device may be lost."""
    for name in names:
        run, budget = PARTS[name]
        began, rows, error = time.monotonic(), [], ""
        try:
            for row in run(Setting(torch.device(device), quick, began + budget)):
                rows.append(row)
        except Exception as failed:  # noqa: BLE001 - one part's failure is its own
            error = f"{type(failed).__name__}: {failed}"
        ok = not error and all(row.ok is not False for row in rows)
        report = {"part": name, "ok": ok, "seconds": time.monotonic() - began, "error": error}
        print(json.dumps(report | {"rows": [asdict(row) for row in rows]}), file=out, flush=True)
        if error:
            return


def run_all(names: list[str], device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Run parts in processes; a new one for what is left when one has ended."""
    ends = time.monotonic() + _ALL_PARTS_S
    remaining = list(names)
    while remaining:
        command = [sys.executable, __file__, "--device", device, "--child", ",".join(remaining), *(["--quick"] if quick else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        grace = _START_S
        while remaining:
            name = remaining[0]
            wait = min(1.5 * PARTS[name][1] + grace, ends - time.monotonic())
            try:
                line = lines.get(timeout=max(wait, 0.0))
            except queue.Empty:
                process.kill()
                yield _failed(remaining.pop(0), f"took longer than {max(wait, 0):.0f} s" if wait > 0 else "no time was left")
                break
            if line is None:
                code = process.wait()
                if code or not grace:
                    yield _failed(remaining.pop(0), f"its process ended with code {code}")
                break
            report = json.loads(line)
            grace = 0.0
            remaining.remove(report["part"])
            yield report
            if report["error"]:
                break
        process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.startswith('{"part"'):  # a compiler or a driver may print too
                lines.put(line)
    lines.put(None)


def _failed(name: str, why: str) -> dict[str, Any]:
    return {"part": name, "ok": False, "seconds": 0.0, "error": why, "rows": []}


def show(report: dict[str, Any]) -> None:
    """Print a part."""
    print(f"{report['part']} ({report['seconds']:.0f} s)")
    for row in report["rows"]:
        value = row["value"] if isinstance(row["value"], str) else f"{row['value']:.4g}"
        verdict = {True: "ok", False: "NO", None: ""}[row["ok"]]
        print(f"  {row['what']:<58} {value:>12} {row['unit']:<10} {verdict}".rstrip())
    if report["error"]:
        print(f"  FAILED: {report['error']}")
    sys.stdout.flush()


def main() -> int:
    """Run what was asked for; 1 if a part failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="few beds and short measurements: does it run at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--parts", default=",".join(PARTS), help="the parts to run, by name and comma: %(default)s")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        with redirect_stdout(sys.stderr):  # libraries may print
            child(args.child.split(","), args.device, args.quick, sys.__stdout__)
        return 0
    names = args.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; with --device cpu --quick the same code runs on this CPU")
    reports: list[dict[str, Any]] = []
    ok = True
    for report in run_all(names, args.device, args.quick):
        show(report)
        reports.append(report)
        ok &= report["ok"]
        if args.json:  # after each part: whoever ends this has the figures so far
            when = datetime.now(UTC).isoformat(timespec="seconds")
            said = {"date": when, "device": args.device, "quick": args.quick, "ok": ok, "parts": reports}
            args.json.write_text(json.dumps(said, indent=1) + "\n")
    print("all parts ok" if ok else "not ok: " + ", ".join(report["part"] for report in reports if not report["ok"]))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
