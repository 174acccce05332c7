"""What takes something from outside: every decoder, reader and command, with the only errors that it may raise.

A target is prepared once and then takes bytes. Seeds are whole inputs, made here and not kept in files.
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from ecgnat_stream import wire
from ecgnat_stream.errors import CheckpointError, ConfigError, DeviceError, EcgnatError, FrameError, InputError, SinkError
from ecgnat_stream.events import Alarm, Beat, Event, LeadQuality, Meta, Quality, Technical, Vitals

__all__ = ["TARGETS", "Target"]

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BED = "home/icu/1"

Take = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from outside.

    Parameters
    ----------
    share
        Its part of all inputs, relative to the others': slow readers get fewer.
    prepare
        Given a folder of its own, returns what takes an input.
    allowed
        Errors that say what is wrong with an input; none other may leave it.
    """

    name: str
    share: float
    seeds: Callable[[], list[bytes]]
    prepare: Callable[[Path], Take]
    allowed: tuple[type[Exception], ...] = ()
    words: tuple[bytes, ...] = ()


TARGETS: dict[str, Target] = {}


def target(
    share: float, seeds: Callable[[], list[bytes]], allowed: Iterable[type[Exception]] = (), words: Iterable[bytes] = ()
) -> Callable[[Callable[[Path], Take]], Callable[[Path], Take]]:
    """Register a target under the name of the function that prepares it."""

    def register(prepare: Callable[[Path], Take]) -> Callable[[Path], Take]:
        name = prepare.__name__.replace("_", "-")
        TARGETS[name] = Target(name, share, seeds, prepare, tuple(allowed), tuple(words))
        return prepare

    return register


# What travels.


def _frames() -> list[bytes]:
    codes = np.arange(-60, 60, dtype=np.int16).reshape(2, 60)
    whole = wire.WaveFrame(
        sequence=7, start=1000, t0_ns=10**18, fs_mhz=250_000, uv_per_lsb=5.0, codes=codes, lead_off=2, loss=False
    )
    return [whole.encode(), whole.encode()[:44]]


@target(120, _frames, (FrameError,), (b"ECGW\x01",))
def wave_frame(_: Path) -> Take:
    """A frame that is read says the same when it is written again."""

    def take(data: bytes) -> None:
        frame = wire.WaveFrame.decode(data)
        assert frame.encode() == data
        assert np.isfinite(frame.samples).sum() <= frame.samples.size

    return take


def _alarm(sequence: int = 7, **changes: Any) -> Alarm:
    values: dict[str, Any] = {
        "bed": BED,
        "time": NOW,
        "condition": "asystole",
        "kind": "physiological",
        "priority": "high",
        "phase": "start",
        "presence": "on",
        "text": "asystole",
        "alarm_id": "r1:7",
        "event_id": f"r1:{sequence}",
    } | changes
    return Alarm(sequence=sequence, **values)


def _examples() -> list[Event]:
    return [
        _alarm(),
        _alarm(8, phase="end", presence="off"),
        Meta(bed=BED, time=NOW, leads=("II",), used_as=("II",), fs=250.0, uv_per_lsb=5.0, device="x", live=True, session=1),
        Beat(bed=BED, time=NOW, sample=250, rr_ms=800.0, label="V"),
        Vitals(bed=BED, time=NOW, heart_rate_bpm=72.0),
        Quality(bed=BED, time=NOW, leads={"II": LeadQuality(0.9, "good")}, usable=True, best_lead="II"),
        Technical(bed=BED, time=NOW, condition="noise", present=True),
        wire.BedStatus(bed=BED, time=NOW, since=NOW, online=True, worker="w1", session=3, state="online"),
        wire.Heartbeat(bed=BED, time=NOW, event_id="h:1", every_s=10.0, receiver="central-1", newest="r1:7"),
    ]


def _events() -> list[bytes]:
    return [wire.encode_json(event) for event in _examples()]


_JSON = (b'"type":', b'"alarm"', b'"bed-status"', b"null", b"true", b'"time":', b"1e999", b'"event_id":', b'"session":')


@target(120, _events, (FrameError,), _JSON)
def event_json(_: Path) -> Take:
    """An event that is read says the same when it is written again."""

    def take(data: bytes) -> None:
        event = wire.decode_json(data)
        assert wire.decode_json(wire.encode_json(event)) == event

    return take


@target(
    80,
    lambda: [
        b'{"action":"pause","condition":"asystole","duration_s":120,"source":"nurse 7","correlation":"c"}',
        b'{"action":"acknowledge"}',
    ],
    (FrameError,),
    (b'"reset"', b'"resume"', b'"duration_s":'),
)
def command(_: Path) -> Take:
    """A command, carried out by an alarm engine that has an alarm."""
    from ecgnat_stream.alarm import AlarmEngine
    from ecgnat_stream.events import Command

    engine = AlarmEngine(BED)
    engine.technical(Technical(bed=BED, time=NOW, condition="noise", present=True), 0)

    def take(data: bytes) -> None:
        try:
            request = msgspec.json.decode(data, type=wire.CommandRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(str(error)) from error
        order = Command(bed=BED, time=NOW, **msgspec.structs.asdict(request))
        result, events = engine.command(order, NOW, 0)
        for said in (result, *events):
            assert wire.decode_json(wire.encode_json(said)) == said

    return take


def _confirmations() -> list[bytes]:
    one = wire.Confirmation(receiver="central-1", events=("r1:7",), time=NOW)
    return [msgspec.json.encode(one), msgspec.json.encode(wire.Confirmation(receiver="x", events=("a", "b")))]


@target(80, _confirmations, (), _JSON)
def confirmation(_: Path) -> Take:
    """Whatever comes on ``alarm/confirm``: counted, never an error."""
    from ecgnat_stream.clock import ManualClock
    from ecgnat_stream.sink.mqtt.confirm import Confirmations, confirm_topic

    topic = SimpleNamespace(value=confirm_topic(BED))

    def take(data: bytes) -> None:
        said: list[Any] = []
        desk = Confirmations(
            {BED: "central-1"},
            "home/engine/w1",
            within_s=5.0,
            every_s=10.0,
            capacity=10,
            clock=ManualClock(),
            publish=said.append,
        )
        desk.expected(_alarm())
        desk.take(SimpleNamespace(topic=topic, payload=data, retain=False))  # type: ignore[arg-type]
        assert desk.confirmed + desk.unknown + desk.foreign + desk.malformed >= 1

    return take


@target(
    80,
    lambda: [b'alarm/command\n{"action":"acknowledge","source":"x"}', b'status\n{"action":"reset"}', b"alarm/command\n"],
    (),
    (b"alarm/command\n", b'"action":', b'"pause"', b'"duration_s":', b'"correlation":'),
)
def mqtt_inbox(_: Path) -> Take:
    """A message on a topic of ours: the first line is the end of its topic, an odd length stands for a response topic."""
    from ecgnat_stream.bus import Bus
    from ecgnat_stream.clock import ManualClock
    from ecgnat_stream.events import Command
    from ecgnat_stream.sink.mqtt.inbox import Inbox

    def take(data: bytes) -> None:
        bus = Bus()
        said: list[Any] = []
        bus.listen(said.append, Event)
        end, _, payload = data.partition(b"\n")
        topic = SimpleNamespace(value=f"ecg/v1/{BED}/{end.decode('utf-8', 'replace')}")
        response = payload[:40].decode("utf-8", "replace") if len(data) % 2 else f"ecg/v1/{BED}/alarm/command/result"
        properties = SimpleNamespace(ResponseTopic=response, CorrelationData=payload[:300])
        inbox = Inbox({BED}, bus, ManualClock())
        inbox.take(SimpleNamespace(topic=topic, payload=payload, retain=False, properties=properties))  # type: ignore[arg-type]
        for event in said:
            assert wire.decode_json(wire.encode_json(event)) == event
            assert event.source.isprintable() if isinstance(event, Command) else True

    return take


@target(80, lambda: [b"alarm/event\n" + data for data in _events()], (), (*_JSON, b"alarm/heartbeat\n", b"status\n"))
def receiver(_: Path) -> Take:
    """A message for a receiver: the first line is the end of its topic."""
    from ecgnat_stream.clock import ManualClock
    from ecgnat_stream.sink.mqtt import Receiver

    def take(data: bytes) -> None:
        end, _, payload = data.partition(b"\n")
        topic = SimpleNamespace(value=f"ecg/v1/{BED}/{end.decode('utf-8', 'replace')}")
        desk = Receiver("mqtt://127.0.0.1", name="central-1", beds=[BED], clock=ManualClock(), backlog=3)
        for retain in (True, False, False):
            desk.take(SimpleNamespace(topic=topic, payload=payload, retain=retain))  # type: ignore[arg-type]

    return take


@target(60, _events, (FrameError,), _JSON)
def followed_bed(_: Path) -> Take:
    """What a receiver makes of a bed's messages."""
    from ecgnat_stream.sink.mqtt.following import Followed

    def take(data: bytes) -> None:
        bed = Followed(BED, 0, lost_s=30.0, gap_s=10.0)
        bed.alarm(_alarm(), 0, retained=False)
        event = wire.decode_json(data)
        for now_ns, retained in ((1, True), (2, False)):
            if isinstance(event, Alarm):
                bed.alarm(event, now_ns, retained=retained)
            elif isinstance(event, wire.BedStatus):
                bed.bed_status(event)
            elif isinstance(event, wire.Heartbeat):
                bed.heartbeat(event, now_ns)
            bed.tick(10**12, NOW)

    return take


@target(60, lambda: [b"\x01ecg/v1/", b"\x01", b"\x00ecg/v1/", b"\x01" + b"a" * 300, b"hello"], (), (b"\x01", b"\x00", b"/alarm/"))
def zmq_greeting(_: Path) -> Take:
    """What a ZeroMQ subscriber sends, line by line, and the greetings that it gets."""
    from ecgnat_stream.sink.zmq.door import Door, Peer
    from ecgnat_stream.sink.zmq.state import Greetings, PresentState

    state = PresentState(capacity=100)
    for number in range(50):
        state.take(f"ecg/v1/home/icu/{number}/vitals", b"{}", kept=True)

    def take(data: bytes) -> None:
        told: list[str] = []
        now_s = iter(range(10**6))
        door, greetings, peer = Door(4, told.append, lambda: float(next(now_s))), Greetings(state), Peer(10**6, 0, "peer")
        for message in data.split(b"\n"):
            prefix = door.count(peer, message, b"")
            if prefix is not None:
                greetings.ask(peer, prefix)
        asked = len(greetings)
        sent = [topic for k in range(200) if (topic := greetings.next(1e6 + k))]
        assert len(sent) <= 200 and (asked or not sent)
        assert all(text.isprintable() for text in told)

    return take


def _keys() -> list[bytes]:
    import zmq

    public, secret = (key.decode() for key in zmq.curve_keypair())
    return [f'metadata\ncurve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'.encode(), b"x" * 40]


@target(15, _keys, (SinkError,), (b"public-key", b"secret-key", b"curve", b"=", b'"', b"\t"))
def zmq_key(scratch: Path) -> Take:
    """A file in the folder of the subscribers' keys, and our own."""
    from ecgnat_stream.sink.zmq.config import ZmqConfig, own_keys
    from ecgnat_stream.sink.zmq.keys import ClientKeys

    keys = ClientKeys(scratch)
    path = scratch / "peer.key"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        keys.refresh()
        keys.callback("", data[:40])
        own_keys(ZmqConfig(secret_key_file=str(path)))

    return take


_INFO = b'{"fs":250.0,"leads":["II","V1"],"device":"x","uv_per_lsb":5.0,"total":500,"pace":1.0}'


@target(
    50,
    lambda: [_INFO, b'{"fs":1e3,"leads":["I"],"device":"","uv_per_lsb":-1}'],
    (DeviceError,),
    (b'"fs":', b"null", b"1e400", b"[]"),
)
def device_border(_: Path) -> Take:
    """What an adapter says about its stream, and a block of it."""
    from ecgnat_stream.device.border import checked_block, checked_info, pieces
    from ecgnat_stream.signal import SampleBlock, StreamInfo

    def take(data: bytes) -> None:
        try:
            values = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            values = {}
        known = {name: values.get(name, default) for name, default in (("fs", 250.0), ("leads", ("II",)), ("device", "x"))}
        more = {name: values[name] for name in ("uv_per_lsb", "total", "pace") if name in values}
        info = checked_info(StreamInfo(**known, **more))
        samples = np.frombuffer(data[: len(data) // 4 * 4], "<f4")
        rows = len(info.leads)
        samples = samples[: len(samples) // rows * rows].reshape(rows, -1)
        start = values.get("start", 0)
        block = checked_block(SampleBlock(start, samples, 10**12), info)
        assert sum(piece.samples.shape[1] for piece in pieces(block, info, 0)) == samples.shape[1]

    return take


# What a person writes.

_TOML = b"""site = "home"
unit = "icu"
model_late_s = 2.0
[mqtt]
url = "mqtt://localhost"
wave = true
[history]
path = "alarms.db"
[alarm]
asystole_s = 4.0
[[bed]]
id = "1"
device = "simulate"
[bed.options]
leads = ["II"]
[bed.alarm]
hr_high_bpm = 130
[bed.lead_map]
MLII = "II"
"""

_STAGES = b"""[quality]
[beats]
[fibrillation]
[schedule]
hop_s = 1.0
[rhythm]
[device]
stall_s = 3
[zmq]
[record]
directory = "records"
"""


@target(
    20,
    lambda: [
        _TOML,
        _STAGES,
    ],
    (ConfigError,),
    (b"[[bed]]\n", b"[alarm]\n", b"= true", b"= [", b"= {", b"= 1979-05-27", b"= 0x", b'"""', b"'''", b"a.b.c."),
)
def configuration(scratch: Path) -> Take:
    """A configuration file."""
    from ecgnat_stream.config import load_config

    path = scratch / "ward.toml"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        load_config(path)

    return take


@target(
    50,
    lambda: [b"mqtt://user@broker.example:1883", b"mqtts://[::1]:8883", b"mqtt://127.0.0.1"],
    (ConfigError,),
    (b"mqtts://", b"@", b":", b"[", b"]", b"%00", b"?", b"#", b"xn--"),
)
def broker_url(_: Path) -> Take:
    """The address of a broker."""
    from ecgnat_stream.sink.mqtt.config import MqttConfig, broker_access

    def take(data: bytes) -> None:
        to = broker_access(MqttConfig(url=data.decode("utf-8", "surrogateescape")))
        assert to.host and 0 <= to.port <= 65_535

    return take


@target(
    20,
    lambda: [
        b'{"leads":["II"],"speed":"max","script":[{"rhythm":"sinus","seconds":20,"rate_bpm":70},{"rhythm":"vt","seconds":30}]}',
        b'{"fs":250,"seed":3,"loop":false}',
    ],
    (EcgnatError,),
    (b'"rhythm":', b'"seconds":', b'"speed":', b'"noise_mv":', b'"rate_bpm":'),
)
def device_options(_: Path) -> Take:
    """The options of an adapter."""
    from ecgnat_stream.clock import ManualClock
    from ecgnat_stream.device import open_device

    def take(data: bytes) -> None:
        try:
            options = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        open_device("simulate", options, ManualClock())

    return take


@target(
    50,
    lambda: [b"2h", b"30m", b"2026-01-01T08:00", b"2026-01-01T08:00:00+01:00", b"MLII=II", b"II,V1"],
    (argparse.ArgumentTypeError, EcgnatError),
    (b"d", b"w", b"Z", b"+", b"="),
)
def command_line_words(_: Path) -> Take:
    """Times, leads and numbers on the command line."""
    from ecgnat_stream.cli.alarms import _moment
    from ecgnat_stream.cli.options import _lead, _leads, positive

    readers: tuple[Callable[[str], object], ...] = (_moment, _lead, _leads, positive)

    def take(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        errors = []
        for read in readers:
            try:
                read(text)
            except (argparse.ArgumentTypeError, EcgnatError) as error:
                errors.append(error)
        if len(errors) == len(readers):
            raise errors[0]

    return take


@target(
    80,
    lambda: [b"lead II \x1b[2J is off", "Herzkammer \u202e\u200b\ufeff".encode(), b"a" * 400],
    (),
    (b"\x1b]0;", b"\x9b", b"\x07"),
)
def text_from_outside(_: Path) -> Take:
    """What a person sees of text from outside."""
    from ecgnat_stream.words import cleaned

    def take(data: bytes) -> None:
        text = cleaned(data.decode("utf-8", "surrogateescape"), 100)
        assert len(text) <= 100
        assert text.isprintable()
        assert cleaned(text, 100) == text

    return take


# Recordings.

_FS, _SAMPLES = 250, 500
_SINE = np.sin(np.arange(_SAMPLES) / 20.0)


def _adu() -> bytes:
    return (np.repeat(_SINE[:, None], 2, 1) * 200).astype("<i2").tobytes()


_HEADERS = [
    b"r 2 250 500 12:00:00 01/01/2026\nr.dat 16 200/mV 12 0 0 0 0 II\nr.dat 16 200(0)/mV 12 0 0 0 0 V1\n# age: 60\n",
    b"r 1 250 500\nr.dat 16+0 200 16 0 0 0 0 MLII\n#Asystole\n#True alarm\n",
    b"r 2 360/100(0) 500\nr.dat 212 200/uV 11 1024 0 0 0 I\nr.dat 212 200 11 1024 0 0 0 II\n",
    b"r/2 1 250 500\ns1 250\ns1 250\n",
]
_WFDB = (
    "/µV".encode(),
    b"/\xb5V",
    b"\xff\xfe",
    b" x4",
    b"24:00:00",
    b"r.dat ",
    b" 16",
    b" 212",
    b" 80",
    b" 310",
    b" 8",
    b" 508",
    b"x2",
    b":5",
    b"+24",
    b"/mV",
    b"(0)",
    b"/2",
    b"~ 100",
    b"#",
    b"-200/mV",
)


def _read_all(path: Path, fmt: str = "auto", **options: Any) -> None:
    from ecgnat_devices.records import open_record

    record = open_record(path, fmt, **options)  # type: ignore[arg-type]
    for start in (0, max(0, record.total - 100)):
        stop = min(record.total, start + 100)
        block = record.read(start, stop)
        assert block.shape == (len(record.leads), stop - start)
        assert block.dtype == np.float32


@target(10, lambda: _HEADERS, (DeviceError, InputError), _WFDB)
def wfdb_header(scratch: Path) -> Take:
    """A header beside samples that are whole."""
    (scratch / "r.dat").write_bytes(_adu())
    (scratch / "s1.hea").write_bytes(b"s1 1 250 250\nr.dat 16 200/mV 12 0 0 0 0 II\n")

    def take(data: bytes) -> None:
        (scratch / "r.hea").write_bytes(data)
        _read_all(scratch / "r")

    return take


@target(10, lambda: [_adu(), b"", b"fLaC" + bytes(100)], (DeviceError, InputError))
def wfdb_samples(scratch: Path) -> Take:
    """Samples beside headers that are whole, of several formats."""
    formats = ("16", "212", "80", "310", "311", "61", "24", "32", "8", "516")
    for fmt in formats:
        name = f"r{fmt}"
        (scratch / f"{name}.hea").write_text(f"{name} 1 250 100\n{name}.dat {fmt} 200/mV 12 0 0 0 0 II\n")

    def take(data: bytes) -> None:
        name = f"r{formats[sum(data[:8]) % len(formats)]}"
        (scratch / f"{name}.dat").write_bytes(data)
        _read_all(scratch / name)

    return take


@cache
def _annotations() -> bytes:
    from ecgnat_stream.annotate import Mark, encode

    notes = (("N", ""), ("V", ""), ("+", "(VFIB"), ("[", ""), ("]", ""), ("~", ""), ("+", "(N"))
    return encode(Mark(60 * k + 5, symbol, note=note) for k, (symbol, note) in enumerate(notes)) + b"\0\0"


@target(6, lambda: [_annotations(), struct.pack("<6H", 1 << 10 | 50, 59 << 10, 0, 100, 1 << 10, 0)], (EcgnatError,))
def annotations(scratch: Path) -> Take:
    """Annotations of a database, as scoring reads them."""
    from ecgnat_stream.alarm import AlarmConfig
    from ecgnat_stream.score.truth import Database

    (scratch / "r.hea").write_bytes(_HEADERS[1])
    (scratch / "r.dat").write_bytes(_adu())
    database = Database(scratch, AlarmConfig())

    def take(data: bytes) -> None:
        (scratch / "r.atr").write_bytes(data)
        database.truth("r")

    return take


@cache
def _edf() -> list[bytes]:
    import tempfile

    import pyedflib

    found = []
    for kind, suffix in ((pyedflib.FILETYPE_EDFPLUS, ".edf"), (pyedflib.FILETYPE_BDFPLUS, ".bdf")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"x{suffix}"
            with pyedflib.EdfWriter(str(path), 1, file_type=kind) as writer:
                writer.setSignalHeaders([pyedflib.highlevel.make_signal_header("ECG II", "uV", 250, 250, -3000.0, 3000.0)])
                writer.writeSamples([_SINE * 500])
            found.append(path.read_bytes())
            found.append(found[-1].replace(b"DF+C", b"DF+D").replace(b"+1\x14\x14", b"+7\x14\x14"))
    return found


@target(
    20,
    _edf,
    (DeviceError, InputError),
    (
        b"EDF+C",
        b"EDF+D",
        b"BDF+C",
        b"24BIT",
        b"-1      ",
        b"99999999",
        b"0       ",
        b"uV",
        b"mV",
        b"+7\x14\x14\0",
        b"0,1",
        b"\xb5V",
    ),
)
def edf(scratch: Path) -> Take:
    """An EDF or BDF file."""
    path = scratch / "x.edf"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        _read_all(path)

    return take


@target(
    20,
    lambda: [
        b"time,II,V1\n0,0.1,0.2\n0.004,0.2,0.3\n0.008,nan,\n",
        b"0.1;0.2\n0.3;0.4\n",
        b"1\t2\n3\t4\n",
        b"1,5;2,5\n",
        b"\xef\xbb\xbfII\n1\n2\n",
        b'"","time_ms","II (uV)","note"\r\n"1",0,"0,5","a"\r\n"2",4,"NA","b"\r\n"3",8,"1,5",""\r\n',
        b"%Sample Rate = 250 Hz\n%x\n0, 1.5, 2.5, 2021-03-04 05:06:07.008\n1, 1.5, NaN, 2021-03-04 05:06:07.012\n",
        b"'Elapsed time','MLII'\n'hh:mm:ss.mmm','mV'\n0:00.000,-0.145\n0:00.003,-0.145\n",
    ],
    (DeviceError, InputError),
    (b",", b";", b"\t", b"\n", b"nan", b"1e400", b"#", b'"'),
)
def csv_table(scratch: Path) -> Take:
    """A CSV file, read, and looked at as a folder's search does."""
    from ecgnat_stream.recordings import find_recordings

    path = scratch / "x.csv"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        found = find_recordings(scratch)
        assert len(found.recordings) + len(found.passed) == 1
        _read_all(path, fs=250.0, units="mV")

    return take


def _npy() -> list[bytes]:
    found = []
    for values in (_SINE.astype("<f4")[None], (_SINE * 100).astype("<i2"), np.stack([_SINE, _SINE], 1)):
        out = io.BytesIO()
        np.save(out, values)
        found.append(out.getvalue())
    return found


@target(
    12,
    _npy,
    (DeviceError, InputError),
    (b"'descr': ", b"'<f4'", b"'|O'", b"'shape': ", b"(1, 500), ", b"'fortran_order': True", b"(-1,)"),
)
def npy(scratch: Path) -> Take:
    """An NPY file."""
    path = scratch / "x.npy"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        _read_all(path, fs=250.0, units="mV", scale=0.01)

    return take


def _archives() -> list[bytes]:
    """Return NPZ and MAT files."""
    import scipy.io

    whole = {"II": _SINE, "V1": -_SINE, "fs": 250.0, "units": "mV"}
    found = []
    for write in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        write(out, **whole)  # type: ignore[arg-type]
        found.append(out.getvalue())
    for table in (whole, {"val": (100 * np.stack([_SINE, _SINE])).astype("<i2")}, {"ecg": {"data": _SINE, "fs": 250.0}}):
        for version, packed in (("5", False), ("5", True), ("4", False)):
            if version == "4" and any(isinstance(value, dict) for value in table.values()):
                continue
            out = io.BytesIO()
            scipy.io.savemat(out, table, format=version, do_compression=packed)
            found.append(out.getvalue())
    return found


@target(
    10, _archives, (DeviceError, InputError), (b"PK\x03\x04", b"MATLAB 5.0", b"\x0e\0\0\0", b"val", b"fs", b"\xff\xff\xff\x7f")
)
def array_archives(scratch: Path) -> Take:
    """Arrays in NPZ and MAT files."""

    def take(data: bytes) -> None:
        path = scratch / ("x.npz" if data[:2] == b"PK" else "x.mat")
        path.write_bytes(data)
        _read_all(path, "npy" if data[:2] == b"PK" else "mat", fs=250.0, units="mV", strict=False)

    return take


@cache
def _bedside(fmt: str) -> list[bytes]:
    """Return whole files of a bedside format."""
    from tests.unit.records import bedside
    from tests.unit.records.makers import signal

    makers = {
        "dicom": (bedside.dicom,),
        "aecg": (bedside.aecg,),
        "scp": (bedside.scp, partial(bedside.scp, differences=1)),
        "ishne": (bedside.ishne,),
        "philips": (bedside.philips, bedside.philips_xli),
        "muse": (bedside.muse, bedside.cardiosoft),
    }[fmt]
    with tempfile.TemporaryDirectory() as folder:
        return [make(Path(folder, "x"), signal(0.4)).read_bytes() for make in makers]


def _register_bedside(fmt: str, *words: bytes) -> None:
    def prepare(scratch: Path) -> Take:
        path = scratch / "x"

        def take(data: bytes) -> None:
            path.write_bytes(data)
            _read_all(path, fmt)

        return take

    TARGETS[fmt] = Target(fmt, 10, lambda: _bedside(fmt), prepare, (DeviceError, InputError), words)


_register_bedside("dicom", b"DICM", b"SQ\0\0", b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"OW", b"SS")
_register_bedside("aecg", b"<digits>", b"</sequence>", b"SLIST_PQ", b"<!DOCTYPE a [", b"1e999", b"NaN")
_register_bedside("scp", b"SCPECG", b"\x1f\x4e", b"\x01\0\0\0", b"\xff\xff")
_register_bedside("ishne", b"ISHNE1.0", b"\xff\x7f", b"\0\x80")
_register_bedside("philips", b'compression="XLI"', b"Plain", b"numberofleads", b"AAAA", b"</parsedwaveforms>")
_register_bedside("muse", b"<LeadData>", b"<WaveFormData>", b"TRUE", b"Median", b"&amp;", b"AAAA")


@target(20, lambda: [*_HEADERS, b"x,y\n1,2\n"], (), _WFDB)
def folder_of_recordings(scratch: Path) -> Take:
    """What is in a folder, and which files a record has."""
    from ecgnat_stream.recordings import files_of, find_recordings, header_of

    path = scratch / "r.hea"
    (scratch / "s1.hea").write_bytes(_HEADERS[1])

    def take(data: bytes) -> None:
        path.write_bytes(data)
        find_recordings(scratch)
        assert header_of(scratch / "r") == path
        assert path in files_of(path)

    return take


@target(8, lambda: [_SINE.astype("<f8").tobytes(), _SINE.astype("<f4").tobytes()], (InputError, DeviceError))
def array(_: Path) -> Take:
    """Numbers in memory, of whatever kind and shape."""
    from ecgnat_stream.analysis.source import open_source

    kinds = ("<f8", "<f4", "<f2", "<i2", "<u8", "<c16", "?", "S4", "<M8[s]")
    rates: tuple[float | None, ...] = (250.0, 0.0, float("nan"), 1e300, -1.0, None)

    def take(data: bytes) -> None:
        kind = np.dtype(kinds[sum(data[:4]) % len(kinds)])
        values = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)
        rows = 1 + sum(data[4:6]) % 3
        values = values[: len(values) // rows * rows].reshape(rows, -1)
        leads = ("I", "II", "V1")[:rows]
        record = open_source(values, fs=rates[sum(data[6:8]) % len(rates)], leads=leads, units=("mV", "uV", "V")[len(data) % 3])
        assert record.read(0, min(100, record.total)).dtype == np.float32

    return take


# What is kept on disk.


@cache
def _card() -> bytes:
    from ecgnat_stream.weights import shipped

    return (shipped() / "config.json").read_bytes()


@target(8, lambda: [_card()], (CheckpointError,), (b'"kernel_size":', b'"embed_dim":', b'"fs":', b"null", b"-1"))
def model_configuration(scratch: Path) -> Take:
    """The configuration of a network."""
    from ecgnat_stream.model.checkpoint import _read_card

    path = scratch / "config.json"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        _read_card(path)

    return take


@cache
def _weights() -> bytes:
    from safetensors.numpy import save

    return bytes(save({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float16)}))


@target(
    1, lambda: [_weights()], (CheckpointError,), (b'"dtype":"F32"', b'"shape":[2,3]', b'"data_offsets":[0,24]', b'"__metadata__"')
)
def model_weights(scratch: Path) -> Take:
    """The weights of a network, beside a configuration that is whole."""
    from ecgnat_stream.model.checkpoint import load_checkpoint

    (scratch / "config.json").write_bytes(_card())

    def take(data: bytes) -> None:
        (scratch / "model.safetensors").write_bytes(data)
        load_checkpoint(scratch)

    return take


@cache
def _history() -> bytes:
    import tempfile

    from ecgnat_stream.sink.history.store import Store

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alarms.db"
        store = Store(path, "2026-01-01T12:00:00.000000Z", 1.0)
        store.write([_alarm(), _alarm(8, phase="end", presence="off"), _alarm(9, condition="tachycardia")], {}, 0)
        store.close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        return path.read_bytes()


def _damaged_history() -> list[bytes]:
    """Places and bytes: the file itself is longer than an input."""
    return [b"\x00\x00\x00\x10x", b"\x00\x00\x30\x00\xff\xff\xff\xff", b""]


@target(6, _damaged_history, (SinkError,))
def history(scratch: Path) -> Take:
    """A damaged alarm history, read as a person and as the next monitor do; an input is places and what stands there."""
    from ecgnat_stream.sink.history import unfinished
    from ecgnat_stream.sink.history.read import History

    whole = _history()
    path = scratch / "alarms.db"

    def take(data: bytes) -> None:
        content = bytearray(whole)
        for k in range(0, len(data) - 4, 8):
            at = int.from_bytes(data[k : k + 4], "big") % len(content)
            content[at : at + 4] = data[k + 4 : k + 8]
        path.write_bytes(content[: len(whole)])
        with History(path) as file:
            file.alarms()
            file.events()
            file.deliveries()
            file.commands()
            file.watched_s()
        unfinished(path)

    return take
