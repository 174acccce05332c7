"""What a receiver has to know of the broker besides its beds: patterns that match none, and another receiver of its name.

In come the places that messages are about and what others confirm, out go texts for the log and for a technical event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ecgnat_stream.clock import Clock
from ecgnat_stream.sink.mqtt.claims import GONE_S
from ecgnat_stream.words import NAME, cleaned

__all__ = ["EVERY_BED", "OtherReceiver", "Patterns"]

EVERY_BED = "+/+/+"

_SEEN = 100
"""Beds that are remembered to be named, at most."""

_NAMED = 8
_OURS = 256
"""So many of our own confirmations are known again when the broker sends them back."""


class Patterns:
    """Which of a receiver's patterns match something, and which beds there are otherwise.

    Parameters
    ----------
    patterns
        ``site/unit/bed``, ``+`` for any name.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._levels = [pattern.split("/") for pattern in patterns]
        self._without = {pattern for pattern in patterns if "/engine/" not in pattern}
        self._seen: dict[str, None] = {}

    @property
    def without(self) -> list[str]:
        """The patterns that have matched no bed yet."""
        return sorted(self._without)

    def match(self, place: str) -> bool:
        """Return whether a bed or worker is one of ours; any other one is remembered, to be named."""
        names = place.split("/")
        hits = ["/".join(levels) for levels in self._levels if all(a in ("+", b) for a, b in zip(levels, names, strict=False))]
        if "engine" not in names[1:2]:
            self._without.difference_update(hits)
            if not hits and len(self._seen) < _SEEN:
                self._seen[place] = None
        return bool(hits)

    def warning(self, where: str) -> str:
        """Return what to say of the patterns without a bed."""
        what = " and ".join(repr(pattern) for pattern in self.without[:_NAMED])
        more = "" if len(self._without) <= _NAMED else f" and {len(self._without) - _NAMED} more patterns"
        beds = sorted(self._seen)
        names = ", ".join(cleaned(bed, 3 * NAME) for bed in beds[:_NAMED])
        rest = f" and {len(beds) - _NAMED} more" if len(beds) > _NAMED else ""
        there = f"there {'is' if len(beds) == 1 else 'are'} {names}{rest}" if beds else "no other bed is known there"
        return f"no bed at {where} matches {what}{more}; {there}: is it site/unit/bed?"


class OtherReceiver:
    """Another receiver of our name, as its confirmations show it."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name, self._clock = name, clock
        self._ours: deque[bytes] = deque(maxlen=_OURS)
        self._sign_ns: int | None = None

    def said(self, payload: bytes) -> None:
        """Note a confirmation of ours."""
        self._ours.append(payload)

    def heard(self, receiver: str, payload: object) -> None:
        """Take what a receiver has confirmed."""
        if receiver == self._name and payload not in self._ours:
            self.sign()

    def sign(self) -> None:
        """Note that the other one is there."""
        self._sign_ns = self._clock.monotonic_ns()

    @property
    def there(self) -> bool:
        """Whether it has given a sign lately."""
        return self._sign_ns is not None and self._clock.monotonic_ns() - self._sign_ns <= GONE_S * 1e9
