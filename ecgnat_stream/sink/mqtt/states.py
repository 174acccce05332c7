"""Retained messages: the newest of each topic, sent again on every connection, alarm states first.

In come topics and payloads, out go messages, a few in flight, never more than a quarter of what the broker takes: the rest is for
alarm events. What the broker refuses waits and is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

from ecgnat_stream.sink.mqtt.client import Client, Message

__all__ = ["IN_FLIGHT", "States"]

IN_FLIGHT = 16
"""States, or topics to subscribe to, that may wait for their acknowledgement at the same time."""


class States:
    """Keeps what is retained at the broker.

    Parameters
    ----------
    changed
        Called when :meth:`post` may have something to do.
    posted
        Called with topic and payload of what goes out.
    answered
        Called with the topic and the broker's reason code.
    may
        Tells whether a topic may be published now; what may not waits, and keeps nobody waiting.
    """

    def __init__(
        self,
        *,
        changed: Callable[[], None],
        posted: Callable[[str, bytes], None],
        answered: Callable[[str, int], None],
        may: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._changed, self._posted, self._answered, self._may = changed, posted, answered, may
        self._payloads: dict[str, bytes] = {}
        self._dirty: dict[str, None] = {}
        self._in_flight = 0

    def __contains__(self, topic: str) -> bool:
        return topic in self._payloads

    def __iter__(self) -> Iterator[str]:
        return iter(self._payloads)

    @property
    def waiting(self) -> int:
        """Return how many are not acknowledged."""
        return sum(map(self._may, self._dirty)) + self._in_flight

    def keep(self, topic: str, payload: bytes, *, send: bool = True) -> None:
        """Take the newest payload of a topic; an empty one takes it off the broker."""
        self._payloads[topic] = payload
        if send:
            self.again(topic)

    def again(self, topic: str) -> None:
        """Send a topic once more."""
        self._dirty[topic] = None
        self._changed()

    def all_again(self) -> None:
        """Send everything: it is a new connection."""
        self._dirty = dict.fromkeys(self._payloads)

    def post(self, client: Client) -> None:
        """Hand as much to the broker as it takes now; never waits."""
        room = min(IN_FLIGHT, max(1, client.receive_maximum // 4)) - self._in_flight
        room = max(0, min(room, client.receive_maximum - client.in_flight))
        for topic in sorted(filter(self._may, self._dirty), key=lambda topic: "/alarm/" not in topic)[:room]:
            payload = self._payloads[topic]
            posted = client.post(Message(topic, payload), retain=True)
            del self._dirty[topic]
            self._in_flight += 1
            self._posted(topic, payload)
            posted.add_done_callback(partial(self._done, topic))

    def _done(self, topic: str, answer: asyncio.Future[int]) -> None:
        self._in_flight -= 1
        if not answer.cancelled():
            self._answered(topic, answer.result())
            if self._payloads.get(topic) == b"" and topic not in self._dirty:
                del self._payloads[topic]
        self._changed()
