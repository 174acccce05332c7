"""What the broker brings to the monitor: commands for its own beds, and what others publish in its name.

In come messages, out go commands on the bus, and messages with the answers. Whatever arrives is bounded: in size, in rate, and to
the topics of our own beds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import Clock, run_id
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import Command, CommandResult, Technical
from ecgnat_stream.sink.mqtt.client import Message
from ecgnat_stream.words import NAME, cleaned

__all__ = ["Inbox", "command_topic"]

_COMMAND_BYTES = 4096
_CORRELATION = 256
_ASKERS = 1000
_A_SECOND, _AT_ONCE = 5.0, 50.0
"""Commands that a bed may be given: lasting, and in a burst."""
_REPORT_S = 10.0
"""Malformed commands are told at most so often, with their number."""


def command_topic(place: str) -> str:
    """Return where commands for a bed, or for ``{site}/engine/{worker}``, are published."""
    return f"{wire.ROOT}/{place}/alarm/command"


class Inbox:
    """Makes commands of messages, and messages of the answers.

    Parameters
    ----------
    places
        Beds and ``{site}/engine/{worker}``: whose commands are ours.

    Attributes
    ----------
    malformed, flooding, foreign
        Messages that were dropped: no commands, too many of them, for beds that are not ours.
    """

    def __init__(self, places: Collection[str], bus: Bus, clock: Clock) -> None:
        self._places, self._bus, self._clock = places, bus, clock
        self._askers: dict[str, _Asker] = {}
        self._tokens: dict[str, tuple[float, int]] = {}
        self._told_ns: dict[str, int] = {}
        self.malformed = self.flooding = self.foreign = 0

    def take(self, message: aiomqtt.Message) -> None:
        """Publish the command that a message holds, or say what is wrong with it."""
        place = "/".join(message.topic.value.split("/")[2:5])
        if place not in self._places or message.topic.value != command_topic(place):
            self.foreign += 1
            return
        if not self._may(place):
            self.flooding += 1
            self._tell("peer-flood", f"{self.flooding} commands dropped, the last for {place}: more than {_A_SECOND:g} a second")
            return
        try:
            command = self._command(place, message)
        except FrameError as error:
            self.malformed += 1
            self._tell("malformed-frame", f"command for {place}: {cleaned(error)} ({self.malformed} in all)")
            return
        self._bus.publish(command)

    def _may(self, place: str) -> bool:
        """Return whether a bed may be given another command now."""
        now_ns = self._clock.monotonic_ns()
        left, at_ns = self._tokens.get(place, (_AT_ONCE, now_ns))
        left = min(_AT_ONCE, left + _A_SECOND * (now_ns - at_ns) / 1e9)
        self._tokens[place] = (max(0.0, left - 1), now_ns)
        return left >= 1

    def _tell(self, condition: str, detail: str) -> None:
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._told_ns.get(condition, now_ns - round(_REPORT_S * 1e9)) >= round(_REPORT_S * 1e9):
            self._told_ns[condition] = now_ns
            self._bus.publish(Technical(bed="", time=self._clock.utc(), condition=condition, present=True, detail=detail))

    def _command(self, place: str, message: aiomqtt.Message) -> Command:
        payload = message.payload
        if message.retain:
            raise FrameError("it is retained: a command must be given now, not before")
        if not isinstance(payload, bytes) or len(payload) > _COMMAND_BYTES:
            raise FrameError(f"more than {_COMMAND_BYTES} bytes")
        try:
            request = msgspec.json.decode(payload, type=wire.CommandRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(str(error)) from error
        response = getattr(message.properties, "ResponseTopic", None)
        data = getattr(message.properties, "CorrelationData", None)
        if len(request.correlation) > _CORRELATION or len(data or b"") > _CORRELATION:
            raise FrameError(f"correlation of more than {_CORRELATION} bytes")
        own = f"{command_topic(place)}/result"
        allowed = response is None or (
            (response == own or response.startswith(f"{own}/")) and not set(response) & set("+#\0") and len(response) <= 256
        )
        token = f"mqtt-{run_id(self._clock.utc())}"
        self._askers[token] = _Asker(response if allowed else None, data, request.correlation)
        if len(self._askers) > _ASKERS:
            del self._askers[next(iter(self._askers))]
        if not allowed:
            self._refuse(place, request, token, f"the response topic must be {own}, or below it")
            raise FrameError(f"response topic {response!r} is not {own} or below it")
        return Command(
            bed=place,
            time=self._clock.utc(),
            action=request.action,
            condition=None if request.condition is None else cleaned(request.condition, NAME),
            duration_s=request.duration_s,
            source=cleaned(request.source, NAME) or "mqtt",
            correlation=token,
        )

    def _refuse(self, place: str, request: wire.CommandRequest, token: str, why: str) -> None:
        self._bus.publish(
            CommandResult(
                bed=place,
                time=self._clock.utc(),
                accepted=False,
                action=request.action,
                reason=why,
                source=cleaned(request.source, NAME),
                correlation=token,
            )
        )

    def answer(self, result: CommandResult, engine: str) -> Message:
        """Return the message that answers a command: where its sender waits for it, with what tells it from others."""
        asker = self._askers.pop(result.correlation, _Asker())
        if asker.correlation is not None:
            result = msgspec.structs.replace(result, correlation=asker.correlation)
        topic = asker.response or wire.topic(result, engine)
        return Message(topic, wire.encode_json(result), correlation=asker.data)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Where and how to answer a command; None for one that did not come from here."""

    response: str | None = None
    data: bytes | None = None
    correlation: str | None = None
