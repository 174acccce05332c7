"""Our beds that another monitor publishes too: noticed, said, and left to one of the two.

Alarms of two monitors on the topics of one bed would overwrite each other: one that says "over" hides the other's asystole. So
one of them has the bed at the broker, and the other publishes nothing of it until the first is gone. In come statuses that the
broker sends back, out goes who has which bed.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import FrameError
from ecgnat_stream.events import EngineStatus, Technical
from ecgnat_stream.sink.mqtt.config import BrokerAccess
from ecgnat_stream.words import NAME, cleaned

__all__ = ["GONE_S", "BedClaims"]

GONE_S = 35.0
"""Another monitor is thought to be there for so long after its last sign: a monitor gives one every 10 s."""

_ONCE_MORE_S = 3.0
"""What the other one may have overwritten before it heard of us is said once more after so long, s."""

_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Names that a monitor can have; nothing else becomes a topic to subscribe to."""

_OURS = 16
"""So many of our own statuses of a bed are known again when the broker sends them back."""


class _Other(msgspec.Struct):
    """Another monitor that publishes a bed of ours."""

    worker: str
    has_it: bool
    sign_ns: int


class BedClaims:
    """Which of our beds are ours at the broker.

    Parameters
    ----------
    worker
        Our own name.
    publish
        Takes the technical events ``bed-taken``.
    changed
        Called with a bed, and whether it is ours at the broker from now on.
    again
        Called with a bed of ours whose retained messages the other one may have overwritten.
    """

    def __init__(
        self,
        worker: str,
        broker: BrokerAccess,
        clock: Clock,
        publish: Callable[[Technical], None],
        *,
        changed: Callable[[str, bool], None],
        again: Callable[[str], None],
    ) -> None:
        self._worker, self._broker, self._clock, self._publish = worker, broker, clock, publish
        self._changed, self._again = changed, again
        self._mine: dict[str, wire.BedStatus] = {}
        self._payloads: defaultdict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=_OURS))
        self._others: dict[str, _Other] = {}
        self._due_ns: dict[str, int] = {}
        self._told: list[tuple[str, bool]] = []

    def ours(self, bed: str) -> bool:
        """Return whether we publish this bed."""
        other = self._others.get(bed)
        return other is None or not other.has_it

    @property
    def topics(self) -> list[str]:
        """Where the other monitors say that they are there."""
        sites = {(bed.partition("/")[0], other.worker) for bed, other in self._others.items()}
        return [f"{wire.ROOT}/{site}/engine/{worker}/status" for site, worker in sorted(sites)]

    def shared(self, bed: str) -> bool:
        """Return whether another monitor publishes this bed, or wants to."""
        return bed in self._others

    def is_now(self, status: wire.BedStatus) -> None:
        """Note the present state of a bed of ours."""
        self._mine[status.bed] = status
        self._payloads[status.bed].append(wire.encode_json(status))

    def heard(self, message: aiomqtt.Message) -> None:
        """Take the status of a bed that the broker sends.

        What it has stored is no proof that somebody is there: it may be the monitor before us.
        """
        payload, bed = message.payload, "/".join(message.topic.value.split("/")[2:5])
        mine = self._mine.get(bed)
        if message.retain or mine is None or not isinstance(payload, bytes):
            return
        if payload in self._payloads[bed]:
            return
        try:
            status = wire.decode_json(payload) if payload else None
        except FrameError:
            return
        if status is not None and not (isinstance(status, wire.BedStatus) and _WORKER.fullmatch(status.worker)):
            return
        if status is not None and status.online:
            self._sign(bed, mine, status)
            return
        # A last will, also one of an earlier connection of ours, or somebody who has cleared it.
        self._left(bed)
        if mine.online:
            self._say_again(bed)

    def engine(self, status: EngineStatus) -> None:
        """Take the status of another monitor: as long as it is there, it keeps its beds."""
        for bed, other in list(self._others.items()):
            if (bed.partition("/")[0], other.worker) != (status.site, status.worker):
                continue
            if status.online:
                other.sign_ns = self._clock.monotonic_ns()
            else:
                self._left(bed)

    def tick(self) -> None:
        """Take back the beds of monitors that give no sign any more."""
        now_ns = self._clock.monotonic_ns()
        for bed in [bed for bed, other in self._others.items() if now_ns - other.sign_ns > GONE_S * 1e9]:
            self._left(bed)
        for bed in [bed for bed, due_ns in self._due_ns.items() if due_ns <= now_ns]:
            del self._due_ns[bed]
            if self.ours(bed):
                self._again(bed)

    def _sign(self, bed: str, mine: wire.BedStatus, theirs: wire.BedStatus) -> None:
        """Settle who has a bed: the one whose stream is online, and if both are, the one whose stream began first."""
        before = self._others.get(bed)
        now_ns = self._clock.monotonic_ns()
        has_it = not self.ours(bed) or not mine.online or _began(theirs) < _began(mine)
        self._others[bed] = _Other(theirs.worker, has_it, now_ns)
        if has_it and (before is None or not before.has_it):
            self._changed(bed, False)
        elif not has_it:
            self._say_again(bed)
        self._tell()

    def _say_again(self, bed: str) -> None:
        """Say a bed's state now and once more, however often somebody asks for it meanwhile."""
        if bed not in self._due_ns:
            self._due_ns[bed] = self._clock.monotonic_ns() + round(_ONCE_MORE_S * 1e9)
            self._again(bed)

    def _left(self, bed: str) -> None:
        other = self._others.pop(bed, None)
        if other is not None and other.has_it:
            self._changed(bed, True)
        self._tell()

    def _tell(self) -> None:
        """Tell of all beds together; heard anew when another one joins."""
        where = f"{self._broker.host}:{self._broker.port}"
        parts = []
        for has_it, what in (
            (True, "it has it, we do not publish it there"),
            (False, "we have it, it should not publish it there"),
        ):
            beds = [bed for bed, other in self._others.items() if other.has_it is has_it]
            if beds:
                more = f" and {len(beds) - 1} more" if len(beds) > 1 else ""
                parts.append(
                    f"{beds[0]}{more} at {where} is also a bed of monitor {cleaned(self._others[beds[0]].worker, NAME)}: {what}"
                )
        detail = "; ".join([*parts, "give every bed an id or unit of its own, or end one of the monitors"]) if parts else ""
        present = sorted((bed, other.has_it) for bed, other in self._others.items())
        if present != self._told:
            self._told = present
            time = self._clock.utc()
            self._publish(Technical(bed="", time=time, condition="bed-taken", present=bool(detail), detail=detail))


def _began(status: wire.BedStatus) -> tuple[int, datetime, str]:
    return (status.session, status.since, status.worker)
