"""The receivers: what reached each sink, and when. They never go away, and take everything at once."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import zmq

from ecgnat_stream import wire
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import Alarm, DeviceStatus, Event, Quality

__all__ = [
    "HISTORY",
    "JSONL",
    "MQTT",
    "RECORD",
    "ZMQ",
    "Heard",
    "Judged",
    "Ledger",
    "read_history",
    "read_recordings",
    "receive_mqtt",
    "receive_zmq",
]

JSONL, MQTT, ZMQ, HISTORY, RECORD = "json lines", "mqtt", "zeromq", "history", "recordings"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Heard:
    """An alarm event that reached a sink at ``t``; for files read at the end that is the end."""

    t: float
    sink: str
    alarm: Alarm


@dataclass(frozen=True, slots=True)
class Judged:
    """A second of a bed that was judged, as a sink said at ``t``: its place on the stream, how old it was, and whether usable."""

    t: float
    sink: str
    bed: str
    at_s: float
    age_s: float
    usable: bool


@dataclass
class Ledger:
    """Everything that was received."""

    now_s: Callable[[], float]
    utc_s: Callable[[], float]
    alarms: list[Heard] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    statuses: list[tuple[float, str, bool, str]] = field(default_factory=list)
    """(t, bed, online, detail) by the broker's retained status, last wills too."""
    states: dict[str, bytes] = field(default_factory=dict)
    twins: set[str] = field(default_factory=set)
    """Identities of the events of a second monitor: they are none of the first one's."""
    twin_sessions: set[tuple[str, int]] = field(default_factory=set)
    """(bed, session) of the streams of a second monitor."""
    sessions: list[tuple[float, str, int]] = field(default_factory=list)
    """(t, bed, session) by the broker's retained status, where it changes: whose stream stands there."""
    control: list[str] = field(default_factory=list)
    first: dict[str, list[float]] = field(default_factory=dict)
    """When each sink was heard again, after it had been silent for a second."""
    counts: dict[str, int] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)
    _session: dict[str, int] = field(default_factory=dict)

    def take(self, sink: str, payload: bytes) -> None:
        """Note a JSON event."""
        t = self.now_s()
        if t - self._last.get(sink, -10.0) > 1.0:
            self.first.setdefault(sink, []).append(t)
        self._last[sink] = t
        self.counts[sink] = self.counts.get(sink, 0) + 1
        try:
            event = wire.decode_json(payload)
        except FrameError as error:
            self.control.append(f"{sink}: not readable: {error}")
            return
        self._look(sink, event)
        if isinstance(event, wire.BedStatus) and sink == MQTT:
            self.statuses.append((t, event.bed, event.online, event.detail))
            if self._session.get(event.bed) != event.session:
                self._session[event.bed] = event.session
                self.sessions.append((t, event.bed, event.session))
        elif isinstance(event, Alarm):
            self.alarms.append(Heard(t, sink, event))
        elif isinstance(event, Quality) and event.at_s is not None:
            self.judged.append(Judged(t, sink, event.bed, event.at_s, self.utc_s() - event.time.timestamp(), event.usable))

    def take_twin(self, payload: bytes) -> None:
        """Note an event of a second monitor, as it tells it."""
        event = wire.decode_json(payload)
        if isinstance(event, Alarm):
            self.twins.add(event.event_id)
        elif isinstance(event, DeviceStatus):
            self.twin_sessions.add((event.bed, event.session))

    def _look(self, sink: str, event: object) -> None:
        """Note control characters in any text of an event: none may reach a person's terminal."""
        for name in getattr(event, "__struct_fields__", ()):
            value = getattr(event, name)
            if isinstance(value, str) and _CONTROL.search(value) and len(self.control) < 1000:
                self.control.append(f"{sink}: {type(event).__name__}.{name}: {value!r}")


async def receive_mqtt(port: int, ledger: Ledger, there: asyncio.Event) -> None:
    """Subscribe at the broker itself, not behind the proxy, again and again; ``there`` says that the subscription stands."""
    while True:
        with suppress(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", port, identifier="receiver", max_queued_incoming_messages=0) as client:
                for topic in ("alarm/event", "alarm/state/+", "status", "quality", "alarm/command/result"):
                    await client.subscribe(f"ecg/v1/+/+/+/{topic}", qos=1)
                there.set()
                async for message in client.messages:
                    _mqtt(message, ledger)
        there.clear()
        await asyncio.sleep(0.05)


def _mqtt(message: aiomqtt.Message, ledger: Ledger) -> None:
    topic, payload = message.topic.value, message.payload
    assert isinstance(payload, bytes)
    if "/alarm/state/" in topic:
        ledger.states[topic] = payload
    elif payload:
        ledger.take(MQTT, payload)


def receive_zmq(endpoint: str, beds: Iterable[str], ledger: Ledger, stop: threading.Event) -> None:
    """Subscribe to every bed's alarms and qualities, and to the worker's alarms, until told to stop; for a thread."""
    wanted = [f"ecg/v1/{bed}/{what}" for bed in beds for what in ("alarm/event", "quality")]
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.RECONNECT_IVL, 50)
        socket.set(zmq.LINGER, 0)
        socket.connect(endpoint)
        for prefix in wanted:
            socket.subscribe(prefix.encode())
        seen: dict[bytes, bytes] = {}
        while not stop.is_set():
            if socket.poll(100):
                topic, number, payload = socket.recv_multipart()
                # A state that was sent to another subscriber comes again; an alarm event has an identity of its own.
                if topic.endswith(b"/alarm/event") or seen.get(topic) != number:
                    seen[topic] = number
                    ledger.take(ZMQ, payload)


def read_history(path: Path, t: float) -> list[Heard]:
    """Return the alarm events in the history."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT body FROM event ORDER BY id").fetchall()
    database.close()
    events = (wire.decode_json(body.encode() if isinstance(body, str) else body) for (body,) in rows)
    return [Heard(t, HISTORY, event) for event in events if isinstance(event, Alarm)]


def read_recordings(folder: Path, t: float) -> list[Heard]:
    """Return the alarm events that stand beside the recordings."""
    heard = []
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            event: Event | None = None
            with suppress(FrameError):  # a line that the process was killed in
                event = wire.decode_json(line)
            if isinstance(event, Alarm):
                heard.append(Heard(t, RECORD, event))
    return heard
