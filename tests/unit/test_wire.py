"""The wire: topics, JSON and its frozen schema, wave frames and how they are cut."""

from __future__ import annotations

import inspect
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest

from ecgnat_stream import events, wire
from ecgnat_stream.codes import RHYTHM_CODES
from ecgnat_stream.errors import FrameError
from ecgnat_stream.signal import SampleBlock

NOW = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
BED = "home/icu/3"
SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "messages.json"
COMMON = {"bed": BED, "time": NOW}

EXAMPLES: list[events.Event] = [
    events.Meta(
        **COMMON, leads=("MLII", "RESP"), used_as=("II", None), fs=360.0, uv_per_lsb=5.0, device="replay", live=False, session=2
    ),
    events.DeviceStatus(**COMMON, state="stalled", detail="silent for 3 s", session=2),
    wire.BedStatus(**COMMON, online=True, since=NOW, worker="w1", session=2, state="online"),
    wire.AlarmSummary(**COMMON, priority="high", conditions=("asystole",), text="asystole"),
    events.Beat(**COMMON, at_s=3.2, sample=1152, rr_ms=812.5, label="N", lead="II"),
    events.Vitals(**COMMON, at_s=3.2, heart_rate_bpm=None),
    events.Quality(**COMMON, leads={"II": events.LeadQuality(0.9, "good")}, usable=True, best_lead="II"),
    events.Rhythm(
        **COMMON,
        at_s=10.0,
        label="AF",
        text="atrial fibrillation or flutter",
        probability=0.9,
        probabilities={"AF": 0.9},
        start_s=9.0,
        stop_s=10.0,
        window_start=0,
        window_stop=3600,
        codes=RHYTHM_CODES["AF"],
        timing=events.Timing(1, 2, 3, 4),
    ),
    events.Alarm(
        **COMMON,
        condition="asystole",
        kind="physiological",
        priority="high",
        phase="start",
        presence="on",
        text="asystole",
        sequence=1,
        alarm_id="a",
        event_id="b",
    ),
    events.Technical(**COMMON, condition="no-data", present=True),
    events.Command(**COMMON, action="pause", duration_s=120.0, correlation="c"),
    events.CommandResult(**COMMON, accepted=True, action="pause"),
    events.EngineStatus(bed="", time=NOW, site="home", worker="w1", online=True, session=4),
    events.Delivery(**COMMON, event_id="b", step="confirmed", by="central-1"),
    wire.Heartbeat(**COMMON, event_id="h", every_s=10.0, receiver="central-1", newest="b"),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda e: type(e).__name__)
def test_every_event_round_trips_fits_the_schema_and_has_a_topic(event: events.Event) -> None:
    data = wire.encode_json(event)
    assert wire.decode_json(data) == event
    jsonschema.validate(json.loads(data), wire.schema())
    assert wire.topic(event).startswith("ecg/v1/home/")


def test_every_event_class_is_among_the_examples() -> None:
    assert {type(e) for e in EXAMPLES} == set(events.Event.__subclasses__())


@pytest.mark.parametrize(
    ("kind", "topic"),
    [
        (events.Meta, "ecg/v1/home/icu/3/meta"),
        (wire.BedStatus, "ecg/v1/home/icu/3/status"),
        (wire.AlarmSummary, "ecg/v1/home/icu/3/alarm/summary"),
        (events.Rhythm, "ecg/v1/home/icu/3/rhythm"),
        (events.Alarm, "ecg/v1/home/icu/3/alarm/event"),
        (events.Command, "ecg/v1/home/icu/3/alarm/command"),
        (events.CommandResult, "ecg/v1/home/icu/3/alarm/command/result"),
        (events.EngineStatus, "ecg/v1/home/engine/w1/status"),
    ],
)
def test_topics(kind: type, topic: str) -> None:
    assert wire.topic(next(e for e in EXAMPLES if type(e) is kind)) == topic


def test_what_concerns_no_bed_goes_to_the_engine() -> None:
    lost = events.Technical(bed="", time=NOW, condition="broker-lost", present=True)
    assert wire.topic(lost, "home/engine/w1") == "ecg/v1/home/engine/w1/technical"
    with pytest.raises(ValueError, match="Technical without a bed"):
        wire.topic(lost)


def test_an_alarm_of_no_bed_has_its_state_at_the_engine() -> None:
    alarm = msgspec.structs.replace(next(e for e in EXAMPLES if isinstance(e, events.Alarm)), bed="")
    assert wire.alarm_state_topic(alarm, "home/engine/w1") == f"ecg/v1/home/engine/w1/alarm/state/{alarm.condition}"
    with pytest.raises(ValueError, match="Alarm without a bed"):
        wire.alarm_state_topic(alarm)


def test_descriptions_in_the_schema_have_no_indent_of_the_source() -> None:
    described = {name: message["description"] for name, message in wire.schema()["$defs"].items()}
    assert described == {name: inspect.cleandoc(text) for name, text in described.items()}
    assert "\n    Counts the bed's streams" in described["BedStatus"]


def test_the_schema_is_the_published_one() -> None:
    assert json.loads(SCHEMA.read_text()) == wire.schema(), "python -m ecgnat_stream.wire > docs/schema/messages.json"


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", "not an event"),
        (b"\xff", "not an event"),
        (b"[" * 100_000, "not an event"),
        (b'{"type":"nonsense"}', "nonsense"),
        (b'{"type":"vitals","bed":"a","time":"2026-01-01T00:00:00Z","heart_rate_bpm":"fast"}', "heart_rate_bpm"),
    ],
)
def test_json_that_is_no_event_says_why(data: bytes, wrong: str) -> None:
    with pytest.raises(FrameError, match=wrong):
        wire.decode_json(data)


def frame(**changes: object) -> wire.WaveFrame:
    codes = np.array([[1, -2, wire.MISSING], [32767, -32767, 0]], np.int16)
    values = {"sequence": 7, "start": 100, "t0_ns": 10**18, "fs_mhz": 360_000, "uv_per_lsb": 5.0, "codes": codes} | changes
    return wire.WaveFrame(**values)  # type: ignore[arg-type]


def test_the_layout_is_as_documented() -> None:
    data = frame(lead_off=2, loss=True).encode()
    assert data[:8] == b"ECGW" + bytes([1, 1, 2, 0])
    assert int.from_bytes(data[8:16], "little") == 100
    assert int.from_bytes(data[16:24], "little") == 10**18
    assert [int.from_bytes(data[i : i + 4], "little") for i in range(24, 40, 4)] == [3, 360_000, 7, 2]
    assert np.frombuffer(data, "<f4", 1, 40)[0] == 5.0
    assert np.frombuffer(data, "<i2", -1, 44).tolist() == [1, -2, -32768, 32767, -32767, 0]


def test_samples_come_back_in_mv_with_missing_as_nan() -> None:
    decoded = wire.WaveFrame.decode(frame().encode())
    np.testing.assert_allclose(decoded.samples, [[0.005, -0.01, np.nan], [163.835, -163.835, 0]], rtol=1e-6)
    assert decoded.fs == 360.0


@pytest.mark.parametrize(
    ("offset", "value", "wrong"),
    [
        (0, b"X", "begins with"),
        (4, b"\x02", "version 2"),
        (5, b"\x80", "flags 0x80"),
        (7, b"\x01", "reserved"),
        (6, b"\x00", "0 leads"),
        (6, b"\x21", "33 leads"),
        (6, b"\x03", "3 leads of 3 samples need 62"),
        (24, b"\x00\x00\x00\x00", "0 samples"),
        (28, b"\x00\x00\x00\x00", "rate of 0"),
        (36, b"\x04", "leads beyond"),
        (40, np.float32(math.nan).tobytes(), "nan microvolts"),
        (40, np.float32(-1).tobytes(), "-1.0 microvolts"),
    ],
)
def test_a_malformed_frame_says_what_is_wrong(offset: int, value: bytes, wrong: str) -> None:
    data = bytearray(frame().encode())
    data[offset : offset + len(value)] = value
    with pytest.raises(FrameError, match=wrong):
        wire.WaveFrame.decode(bytes(data))


def wave(start: int, samples: np.ndarray, lead_off: frozenset[str] = frozenset(), uv_per_lsb: float = 5.0) -> events.Wave:
    block = SampleBlock(start, samples.astype(np.float32), 0, lead_off)
    return events.Wave(BED, NOW, 100.0, ("II", "V1")[: len(samples)], uv_per_lsb, block)


def test_lost_samples_are_missing_and_lost_frames_are_left_out() -> None:
    cutter = wire.WaveCutter(100.0, ("II",), 5.0)
    frames = cutter.cut(wave(0, np.ones((1, 30))), 10**10) + cutter.cut(wave(95, np.ones((1, 25))), 11 * 10**9) + cutter.flush()
    assert [(f.start, f.sequence, f.loss) for f in frames] == [(0, 0, False), (20, 1, True), (80, 2, True), (100, 3, False)]
    assert np.isnan(frames[1].samples[0]).tolist() == [False] * 10 + [True] * 10
    assert [f.t0_ns for f in frames] == [9_700_000_000, 9_900_000_000, 10_600_000_000, 10_800_000_000]


STRANGE = (0.0, -1.0, -200.0, 1e-320, 1e-50, 1e-9, 5.0, 1e4, 1e50, math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("uv_per_lsb", STRANGE)
@pytest.mark.parametrize("value", [0.0, 1.0, -5000.0, 1e9, 1e30, -3.4e38, math.inf, -math.inf])
def test_no_step_and_no_sample_stops_the_cutter(uv_per_lsb: float, value: float) -> None:
    cutter = wire.WaveCutter(100.0, ("II",), uv_per_lsb)
    samples = np.where(np.arange(20) < 10, value, np.nan)[None]
    (frame,) = cutter.cut(wave(0, samples, uv_per_lsb=uv_per_lsb), 10**10)
    again = wire.WaveFrame.decode(frame.encode())
    assert np.isnan(again.samples[0, 10:]).all()
    got = again.samples[0, :10]
    if math.isfinite(value) and abs(value) < 1e10:
        assert np.allclose(got, value, rtol=2e-4, atol=again.uv_per_lsb / 1000), "a strange step changes no sample"
    else:
        assert np.all(np.abs(again.codes[0, :10]) == 32767), "out of range is at the end of it"
        assert np.all(np.sign(got) == np.sign(value))


@pytest.mark.parametrize("uv_per_lsb", [step for step in STRANGE if not (step > 0 and math.isfinite(step))])
def test_a_step_that_is_none_is_refused_by_name(uv_per_lsb: float) -> None:
    with pytest.raises(ValueError, match="uv_per_lsb"):
        wire.quantise(np.zeros((1, 5), np.float32), uv_per_lsb)


@pytest.mark.parametrize("value", [*np.geomspace(1e-4, 1e7, 45), 32.767, 65.534, 163.835])
def test_the_step_is_the_finest_doubling_that_holds_the_signal(value: float) -> None:
    cutter = wire.WaveCutter(100.0, ("II",), 1.0)
    value = float(np.float32(value))
    (frame,) = cutter.cut(wave(0, np.tile([value, -value], 10)[None], uv_per_lsb=1.0), 10**10)
    assert frame.baseline == ()
    assert 1000 * value <= 32767 * frame.uv_per_lsb
    assert frame.uv_per_lsb == 1.0 or 1000 * value > 32767 * frame.uv_per_lsb / 2
    assert math.log2(frame.uv_per_lsb).is_integer()


def test_a_large_signal_gets_a_coarser_step_and_leads_off_are_told() -> None:
    cutter = wire.WaveCutter(100.0, ("II", "V1"), 1.0)
    large = np.vstack((np.tile([100.0, -100.0], 10), np.full(20, -1.0)))
    (only,) = cutter.cut(wave(0, large, frozenset({"V1"}), 1.0), 10**10)
    assert only.uv_per_lsb == 4.0
    assert only.lead_off == 0b10
    np.testing.assert_allclose(only.samples, large, atol=0.002)


OFFSETS_MV = (0.0, 75.0, -42.0, 300.0, -300.0, 4900.0)


@pytest.mark.parametrize("uv_per_lsb", [0.01, 0.1, 0.305, 1.0, 5.0, 10.0])
def test_an_ecg_on_an_electrode_offset_keeps_its_step(uv_per_lsb: float) -> None:
    cutter = wire.WaveCutter(100.0, ("II", "V1"), uv_per_lsb)
    ecg = np.sin(np.arange(20))[None] * 0.1
    for offset in OFFSETS_MV:
        samples = np.vstack((ecg + offset, ecg)).astype(np.float32)
        (frame,) = cutter.cut(wave(cutter.sequence * 20, samples, uv_per_lsb=uv_per_lsb), 10**10)
        again = wire.WaveFrame.decode(frame.encode())
        assert again.uv_per_lsb == np.float32(uv_per_lsb)
        rounding = np.spacing(np.float32(abs(offset) + 1))
        np.testing.assert_allclose(again.samples, samples, rtol=0, atol=again.uv_per_lsb / 2000 + rounding)


def test_a_frame_with_an_electrode_change_is_as_coarse_as_it_has_to_be_and_the_next_one_is_fine_again() -> None:
    cutter = wire.WaveCutter(100.0, ("II",), 1.0)
    samples = np.where(np.arange(60) < 30, 0.0, 100.0)[None] + np.sin(np.arange(60))[None]
    frames = cutter.cut(wave(0, samples, uv_per_lsb=1.0), 10**10)
    assert [frame.uv_per_lsb for frame in frames] == [1.0, 2.0, 1.0]
    got = np.concatenate([wire.WaveFrame.decode(frame.encode()).samples for frame in frames], axis=1)
    np.testing.assert_allclose(got, samples, rtol=0, atol=0.00101)


def test_the_layout_of_a_frame_with_baselines_is_as_documented() -> None:
    data = frame(baseline=(75_000, -42_000)).encode()
    assert data[5] == 0x02
    assert np.frombuffer(data, "<i4", 2, 44).tolist() == [75_000, -42_000]
    assert np.frombuffer(data, "<i2", -1, 52).tolist() == [1, -2, -32768, 32767, -32767, 0]
    assert wire.WaveFrame.decode(data).samples[:, 0].tolist() == pytest.approx([375.005, -46.165])
    with pytest.raises(FrameError, match="2 leads of 3 samples need 64"):
        wire.WaveFrame.decode(data[:-1])


def test_wall_times_become_ns_without_rounding() -> None:
    assert wire.epoch_ns(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1, microseconds=1)) == 1_000_001_000


OUR_OWN = {
    "Meta.used_as": "names of ours",
    "AlarmSummary.conditions": "of events that are clean",
}
"""Fields of events in which no text from outside can be, and why."""


def test_every_text_of_an_event_is_cleaned_or_ours() -> None:
    nasty = "a\x1b[2J\u202e\ud800\nb" + "x" * 1000
    seen = set()
    for event in EXAMPLES:
        name = type(event).__name__
        for field in msgspec.structs.fields(type(event)):
            kind = field.type
            if kind not in (str, str | None, tuple[str, ...], tuple[str | None, ...]):
                continue
            if f"{name}.{field.name}" in OUR_OWN:
                seen.add(f"{name}.{field.name}")
                continue
            value = (nasty,) if "tuple" in str(kind) else nasty
            made = getattr(msgspec.structs.replace(event, **{field.name: value}), field.name)
            text = made[0] if isinstance(made, tuple) else made
            longest = 1200 if field.name in ("bed", "alarm_id", "event_id", "newest") else 600
            assert text.isprintable() and text.startswith("a") and len(text) <= longest, f"{name}.{field.name}: {text!r}"
            wire.encode_json(msgspec.structs.replace(event, **{field.name: value}))
    assert seen
