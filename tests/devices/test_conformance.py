"""The conformance kit over every adapter, and the kit itself over devices that break the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyedflib
import pytest
import wfdb

from ecgnat_devices.simulate import SimulateDevice, SimulateOptions
from ecgnat_stream.clock import Clock
from ecgnat_stream.device import Device, device_names, open_device
from ecgnat_stream.signal import SampleBlock, StreamInfo
from ecgnat_stream.testing import ScriptedDevice, ScriptedOptions, Step, check_device

FS = 250
INFO = StreamInfo(fs=FS, leads=("I", "II"), device="scripted", total=500)


def _signal(length: int = 2600) -> np.ndarray:
    t = np.arange(length) / FS
    return np.stack([np.sin(2 * np.pi * 1.2 * t), 0.5 * np.sin(2 * np.pi * 0.7 * t)])


def _write(fmt: str, folder: Path) -> dict[str, Any]:
    x = _signal()
    if fmt.startswith("wfdb"):
        code = fmt.removeprefix("wfdb-")
        wfdb.wrsamp(
            "rec",
            FS,
            ["mV", "uV"],
            ["I", "II"],
            x.T * [1, 1000],
            fmt=[code] * 2,
            adc_gain=[200, 0.2],
            baseline=[0, 0],
            write_dir=str(folder),
        )
        return {"path": str(folder / "rec")}
    if fmt == "edf":
        with pyedflib.EdfWriter(str(folder / "rec.edf"), 2, pyedflib.FILETYPE_EDFPLUS) as edf:
            for row, lead in enumerate(("ECG I", "ECG II")):
                edf.setSignalHeader(row, {
                    "label": lead, "dimension": "uV", "sample_frequency": FS, "physical_max": 3000, "physical_min": -3000,
                    "digital_max": 32767, "digital_min": -32768, "prefilter": "", "transducer": "",
                })  # fmt: skip
            edf.writeSamples([row[:2500] * 1000 for row in x])
        return {"path": str(folder / "rec.edf")}
    if fmt == "csv":
        np.savetxt(folder / "rec.csv", x.T * 1000, delimiter=",", header="I,II", comments="")
        return {"path": str(folder / "rec.csv"), "fs": FS, "units": "uV"}
    np.save(folder / "rec.npy", np.round(x * 250).astype(np.int16))
    return {"path": str(folder / "rec.npy"), "fs": FS, "units": "uV", "scale": 4.0, "leads": ["I", "II"]}


FORMATS = ("wfdb-16", "wfdb-212", "wfdb-516", "edf", "csv", "npy")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("speed", ["max", 4.0])
def test_replay_conforms(fmt: str, speed: Any, tmp_path: Path) -> None:
    options = _write(fmt, tmp_path) | {"speed": speed}
    check_device(
        lambda clock: open_device("replay", options, clock),
        lambda clock, block: open_device("replay", options | {"block": block}, clock),
        blocks=200,
    )


@pytest.mark.parametrize("fmt", FORMATS)
async def test_replay_delivers_what_was_written(fmt: str, tmp_path: Path, clock: Clock) -> None:
    device = open_device("replay", _write(fmt, tmp_path), clock)
    async with device as info:
        x = np.concatenate([block.samples async for block in device], axis=1)
    assert info.leads == ("I", "II")
    assert info.fs == FS
    assert x.shape[1] == info.total == (2500 if fmt == "edf" else 2600)
    np.testing.assert_allclose(x, _signal()[:, : x.shape[1]], atol=0.0051)


@pytest.mark.parametrize(
    "options", [{}, {"speed": "max", "script": "arrest", "counter": True}, {"leads": ["II"], "jitter_s": 0.3}]
)
def test_simulate_conforms(options: dict[str, Any]) -> None:
    check_device(
        lambda clock: open_device("simulate", options, clock),
        lambda clock, block: open_device("simulate", options | {"block": block}, clock),
    )


def test_simulate_with_every_artefact_conforms() -> None:
    kinds = ("noise", "wander", "mains", "muscle", "motion", "lead_off", "gap")
    options = msgspec.convert(
        {"artefacts": [{"kind": kind, "start_s": 0.5 * i, "seconds": 0.7, "leads": ["V1"]} for i, kind in enumerate(kinds)]},
        SimulateOptions,
    )
    check_device(lambda clock: SimulateDevice(options, clock), blocks=100)


def _scripted(clock: Clock) -> ScriptedDevice:
    steps = tuple(Step(i * 0.1, SampleBlock(25 * i, np.zeros((2, 25), np.float32), 0)) for i in range(20))
    return ScriptedDevice(ScriptedOptions(info=INFO, steps=steps), clock)


def test_scripted_device_conforms() -> None:
    check_device(_scripted)


def test_every_installed_adapter_is_checked_here() -> None:
    assert {"replay", "simulate"} <= set(device_names())


class _Reused(ScriptedDevice):
    """Hands out one buffer again and again."""

    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        buffer = np.zeros((2, 25), np.float32)
        async for block in super().__aiter__():
            buffer += 1
            yield SampleBlock(block.start, buffer, block.t_ns)


class _Backwards(ScriptedDevice):
    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        async for block in super().__aiter__():
            yield SampleBlock(0, block.samples, block.t_ns)


class _Double(ScriptedDevice):
    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        async for block in super().__aiter__():
            yield SampleBlock(block.start, block.samples.astype(np.float64), block.t_ns)  # type: ignore[arg-type]


class _Short(ScriptedDevice):
    async def __aiter__(self) -> AsyncIterator[SampleBlock]:
        async for block in super().__aiter__():
            yield block
            return


@pytest.mark.parametrize(
    ("broken", "said"),
    [(_Reused, "changed later"), (_Backwards, "after samples up to"), (_Double, "float64"), (_Short, "total is 500")],
)
def test_kit_finds_broken_devices(broken: type[ScriptedDevice], said: str) -> None:
    def factory(clock: Clock) -> Device:
        return broken(_scripted(clock)._options, clock)

    with pytest.raises(AssertionError, match=said):
        check_device(factory)


async def test_the_kit_cannot_be_passed_by_forgetting_to_await_it() -> None:
    with pytest.raises(RuntimeError, match="plain function"):
        check_device(_scripted)
