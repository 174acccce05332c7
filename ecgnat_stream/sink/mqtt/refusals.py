"""What the broker refuses: counted, named by topic and reason, and a technical alarm of the bed that it concerns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from ecgnat_stream.clock import Clock
from ecgnat_stream.events import Technical
from ecgnat_stream.sink.mqtt.client import REFUSED, reason

__all__ = ["Refusals"]

_log = logging.getLogger(__name__)

_UNSAID = 0x80
"""Unspecified error: what paho says of a connection that went without a word of the broker."""

_NO_REFUSALS = {0x88, 0x89, 0x8B, 0x8D, 0x8E, 0x9C, 0x9D}
"""Reasons to end a connection that say nothing against us: not there, busy, ending, silence, taken over, elsewhere."""

_FORGOTTEN_S = 60.0
"""A refusal that is not repeated for so long is over; what is tried again is tried more often than that."""


class Refusals:
    """Keeps the topics that the broker refuses at present.

    Parameters
    ----------
    beds
        The monitor's own; a refusal of any other topic concerns the worker.
    publish
        Takes the technical events ``delivery-refused``.

    Attributes
    ----------
    count
        All refusals.
    """

    def __init__(self, beds: Collection[str], clock: Clock, publish: Callable[[Technical], None]) -> None:
        self._beds, self._clock, self._publish = beds, clock, publish
        self._topics: dict[str, dict[str, int]] = {}
        self.count = 0

    def judge(self, topic: str, code: int) -> bool:
        """Note a broker's answer; return whether it has taken what was sent."""
        if code < REFUSED:
            self.accepted(topic)
        else:
            self.refused(topic, code)
        return code < REFUSED

    def refused(self, topic: str, code: int) -> None:
        """Note that the broker has refused a message or a subscription."""
        self.count += 1
        bed = self._bed(topic)
        topics = self._topics.setdefault(bed, {})
        if topic not in topics:
            why = f"{topic}: {reason(code)}"
            _log.warning("the broker refuses %s", why)
            if not topics:
                self._tell(bed, why, present=True)
        topics[topic] = self._clock.monotonic_ns()

    def ended(self, connection: str, code: int | None) -> None:
        """Note that the broker has ended a connection, with its reason if it gave one."""
        if code is None or code <= _UNSAID:
            return
        if code in _NO_REFUSALS:
            _log.warning("the broker has ended %s: %s", connection, reason(code))
        else:
            self.refused(connection, code)

    def accepted(self, topic: str) -> None:
        """Note that the broker takes a topic."""
        if self._topics:
            self._forget(self._bed(topic), topic)

    def tick(self) -> None:
        """Forget what was not refused again."""
        before_ns = self._clock.monotonic_ns() - round(_FORGOTTEN_S * 1e9)
        old = [(bed, topic) for bed, topics in self._topics.items() for topic, at_ns in topics.items() if at_ns < before_ns]
        for bed, topic in old:
            self._forget(bed, topic)

    def _forget(self, bed: str, topic: str) -> None:
        topics = self._topics.get(bed, {})
        if topics.pop(topic, None) is not None and not topics:
            del self._topics[bed]
            self._tell(bed, "", present=False)

    def _bed(self, topic: str) -> str:
        bed = "/".join(topic.split("/")[2:5])
        return bed if bed in self._beds else ""

    def _tell(self, bed: str, detail: str, *, present: bool) -> None:
        self._publish(Technical(bed=bed, time=self._clock.utc(), condition="delivery-refused", present=present, detail=detail))
