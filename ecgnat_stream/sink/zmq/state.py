"""What is true now, topic by topic, and who is still to be told: the present state that a new subscription is sent.

A greeting is seen by every subscriber of its topic, so it is sent once for all who wait, and it is paced: nobody loses live
messages because somebody else subscribes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from datetime import datetime
from itertools import islice

from ecgnat_stream.sink.zmq.door import Allowance, Peer

__all__ = ["Greetings", "PresentState", "numbers_from"]

_TOPICS = 20_000
"""Topics that are remembered; 200 beds have about 5,000. Beyond, the one that was silent for longest is forgotten."""

_GREETINGS, _GREETINGS_PER_S = 20_000.0, 5_000.0
_LOOKED_AT = 64


class PresentState:
    """The number of the newest message of every topic, and its payload where it is kept.

    Parameters
    ----------
    before
        Number before the first one of every topic; see :func:`numbers_from`.
    capacity
        Topics at most.
    """

    def __init__(self, before: int = 0, capacity: int = _TOPICS) -> None:
        self._before, self._capacity = before, capacity
        self._newest: OrderedDict[str, tuple[int, bytes | None]] = OrderedDict()
        self._kept: list[str] = []

    def __len__(self) -> int:
        """Return how many topics have a present state."""
        return len(self._kept)

    def take(self, topic: str, payload: bytes, *, kept: bool) -> bytes:
        """Note a message; return its number, as it is sent."""
        number, before = self._newest.get(topic, (self._before, None))
        self._newest[topic] = (number + 1, payload if kept else before)
        self._newest.move_to_end(topic)
        if kept and before is None:
            insort(self._kept, topic)
        if len(self._newest) > self._capacity:
            gone, (_, payload_gone) = self._newest.popitem(last=False)
            if payload_gone is not None:
                del self._kept[bisect_left(self._kept, gone)]
        return (number + 1).to_bytes(8, "little")

    def of(self, topic: str) -> tuple[bytes, bytes] | None:
        """Return number and payload of a topic's present state."""
        number, payload = self._newest.get(topic, (0, None))
        return None if payload is None else (number.to_bytes(8, "little"), payload)

    def topics(self, prefix: str) -> list[str]:
        """Return the topics that have a present state and begin so."""
        first = bisect_left(self._kept, prefix)
        stop = first
        while stop < len(self._kept) and self._kept[stop].startswith(prefix):
            stop += 1
        return self._kept[first:stop]


def numbers_from(time: datetime) -> int:
    """Return the number before the first of a process that begins at ``time``: higher than any of those that began earlier.

    It is the wall time in ms, times 2**20: a million messages of a topic in each ms of an earlier process stay below.
    """
    return max(0, round(time.timestamp() * 1000)) << 20


class Greetings:
    """The topics that are to be sent for new subscriptions: those of alarms first, each once, and not too many in a time."""

    def __init__(self, state: PresentState) -> None:
        self._state = state
        self._alarms: OrderedDict[str, None] = OrderedDict()
        self._others: OrderedDict[str, None] = OrderedDict()
        self._asked: OrderedDict[tuple[Peer, bytes], None] = OrderedDict()
        self._pace = Allowance(_GREETINGS, _GREETINGS_PER_S)

    def __len__(self) -> int:
        """Return how many topics and requests wait."""
        return len(self._alarms) + len(self._others) + len(self._asked)

    def ask(self, peer: Peer, prefix: bytes) -> None:
        """Note that a peer is to be told what is true now."""
        self._asked[(peer, prefix)] = None

    def next(self, now_s: float) -> str | None:
        """Return the next topic to send; None if there is none, or not yet."""
        if not (self._alarms or self._others):
            self._answer_one(now_s)
        due = self._alarms or self._others
        if not due or not self._pace.take(1, now_s):
            return None
        return due.popitem(last=False)[0]

    def _answer_one(self, now_s: float) -> None:
        """Make the topics of one request due: the first whose peer has not asked for too much."""
        for peer, prefix in list(islice(self._asked, _LOOKED_AT)):
            del self._asked[(peer, prefix)]
            if peer.gone:
                continue
            topics = self._state.topics(prefix.decode(errors="replace"))
            # Everything twice is what a peer may ask for at once; whoever asks for more waits.
            peer.greetings.widen(2.0 * len(self._state) + 100)
            if not peer.greetings.take(len(topics), now_s):
                self._asked[(peer, prefix)] = None
                continue
            for topic in topics:
                (self._alarms if "/alarm/" in topic else self._others)[topic] = None
            return
