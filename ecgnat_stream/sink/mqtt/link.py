"""Connections to an MQTT broker, each with one last will, made again for ever whenever they are lost.

In comes what to do with a connection; a broker that cannot be reached, refuses or leaves is reported and tried again after a
jittered wait. MQTT 5, or 3.1.1 where the broker knows no other. The main connection goes first: the others wait for it, and come
a few at a time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from uuid import uuid4

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.clock import Clock
from ecgnat_stream.sink.mqtt.client import REFUSED, SESSION_TAKEN_OVER, UNSUPPORTED_PROTOCOL, Client, Message, code_of
from ecgnat_stream.sink.mqtt.config import BrokerAccess, MqttConfig

__all__ = ["BedLink", "Link", "Road", "identifier"]

_NOT_SOON = {0x85, 0x86, 0x87, 0x8A, 0x8C, 0x95, 0x97, 0x98, 0x9A, 0x9B, 0x9F}
"""Refusals that another attempt does not change: client identifier, account, ban, method, size, quota, an administrator, retained
messages, quality of service, rate of connections."""

_SOON_S = 2.0
"""Longest wait for a broker that is away: once it is back, alarms must be out within seconds."""

_STABLE_S = 5.0
"""A connection that lasted so long was good: the next wait is the first one again."""

_CUT_SHORT = 3
"""After so many connections in a row that did not last so long, it is said what that may mean."""

_FIGHT = f"; {_CUT_SHORT} connections in a row did not last: does the broker give several clients one identifier?"

_FAREWELL_S = 1.0
_SIDE_LINKS = 4
"""Connections besides the main one that are being made at the same time."""

_STATUS_AGAIN_S = 10.0
"""A refused status of a bed is sent again after so long."""


def identifier(*names: str) -> str:
    """Return a client identifier that no other names share; ``/`` and ``_`` and ``.`` become ``_2f``, ``_5f`` and ``_2e``."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else f"_{ord(c):02x}" for c in "/".join(names))


class Road:
    """What the connections of one sink share: a name that no other process has, the version of the protocol, who goes first."""

    def __init__(self, config: MqttConfig) -> None:
        self.run = uuid4().hex[:8]
        self.v5 = config.protocol != "3.1.1" and not config.embedded
        self.asked = config.protocol != "auto" or config.embedded
        self.auto = not self.asked
        self.main_is_up = asyncio.Event()
        self.side = asyncio.Semaphore(_SIDE_LINKS)


class _Lost(Exception):  # noqa: N818 - not an error: the state of a link
    """No connection, and why."""

    def __init__(self, reason: str, code: int | None, *, stood: bool) -> None:
        super().__init__(reason)
        self.code, self.stood = code, stood


class Link:
    """One connection with one last will, made again whenever it is lost or ``serve`` returns.

    Parameters
    ----------
    will
        Returns the message for the broker to publish, retained, when this connection breaks; also our farewell. None: no will.
    serve
        Called with every new client; returns to have a new connection with a fresh will.
    report
        Called with the reason when there is no connection, with None when there is.
    taken
        Called when another client comes with our identifier, which ends in ``road.run``: the broker gives several clients one. We
        take another one then; if that does not help, we come back less and less often.
    ended
        Called with the reason code, or None, when the broker ends a connection that stood.
    main
        Whether the others wait for this one.
    """

    def __init__(
        self,
        client_id: str,
        to: BrokerAccess,
        config: MqttConfig,
        clock: Clock,
        road: Road,
        *,
        will: Callable[[], Message | None] | None,
        serve: Callable[[Client], Awaitable[None]],
        report: Callable[[str | None], None] = lambda _: None,
        taken: Callable[[], None] = lambda: None,
        ended: Callable[[int | None], None] = lambda _: None,
        main: bool = False,
    ) -> None:
        self._id, self._to, self._config, self._clock, self._road = client_id, to, config, clock, road
        self._will, self._serve, self._report, self._main = will, serve, report, main
        self._taken, self._ended = taken, ended
        self._run, self._takeovers, self._cut_short = road.run, 0, 0
        self._since_ns: int | None = None
        self.ended = False

    async def run(self) -> None:
        """Stay connected until cancelled; then say farewell and disconnect."""
        wait_s = self._config.backoff_first_s
        while not self.ended:
            self._since_ns = None
            lost = await self._once()
            if self._lasted_s() >= _STABLE_S or lost is None:
                wait_s, self._takeovers, self._cut_short = self._config.backoff_first_s, 0, 0
            if lost is None:
                continue
            if lost.code == UNSUPPORTED_PROTOCOL and self._road.auto and self._road.v5:
                self._road.v5, self._road.asked = False, True
                continue
            if lost.stood:
                self._cut_short += 1
                self._ended(lost.code)
            self._report(f"{lost}{_FIGHT if self._cut_short >= _CUT_SHORT else ''}")
            if lost.code == SESSION_TAKEN_OVER:
                self._takeovers += 1
                self._run = uuid4().hex[:8]
                self._taken()
            not_soon = lost.code in _NOT_SOON or self._takeovers > 1
            longest_s = self._config.backoff_max_s if not_soon else min(_SOON_S, self._config.backoff_max_s)
            pause_s = min(wait_s, longest_s) * (1 - 0.5 * random.random())
            wait_s = min(2 * wait_s, longest_s)
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(pause_s * 1e9))

    def _lasted_s(self) -> float:
        return 0.0 if self._since_ns is None else (self._clock.monotonic_ns() - self._since_ns) / 1e9

    async def _once(self) -> _Lost | None:
        lost: _Lost | None = None
        try:
            async with AsyncExitStack() as stack:
                client = await self._connect(stack)
                self._since_ns = self._clock.monotonic_ns()
                self._report(None)
                if self._main:
                    self._road.main_is_up.set()
                    stack.callback(self._road.main_is_up.clear)
                try:
                    await self._serve(client)
                except asyncio.CancelledError:
                    await self._farewell(client)
                    raise
        except* aiomqtt.MqttError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            if isinstance(error.__cause__, aiomqtt.MqttError):
                error = error.__cause__  # of an iteration over messages: what ended it
            lost = _Lost(f"{self._to.host}:{self._to.port}: {error}", code_of(error), stood=self._since_ns is not None)
        return lost

    async def _connect(self, stack: AsyncExitStack) -> Client:
        if self._main:
            return await self._entered(stack)
        await self._road.main_is_up.wait()
        async with self._road.side:
            return await self._entered(stack)

    async def _entered(self, stack: AsyncExitStack) -> Client:
        if not self._road.asked:
            async with self._client(None, plain=True):
                self._road.asked = True
        return await stack.enter_async_context(self._client(self._will() if self._will else None))

    def _client(self, will: Message | None, *, plain: bool = False) -> Client:
        last = aiomqtt.Will(will.topic, will.payload, qos=1, retain=True) if will else None
        return Client(self._config, self._to, f"{self._id}-{self._run}", self._road.v5, last, plain=plain)

    async def _farewell(self, client: Client) -> None:
        will = self._will() if self._will else None
        if will is not None:
            with suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(min(_FAREWELL_S, self._config.linger_s)):
                    await client.send(will, retain=True)


class BedLink:
    """Publishes one bed's status on a connection of its own, whose last will is that the bed is offline.

    Parameters
    ----------
    ours
        Whether the bed is ours at the broker; while it is another monitor's, nothing is said, and there is no last will.
    refused, accepted
        Called with the topic (and the reason code) when the broker refuses the status, and when it takes it.
    """

    def __init__(
        self,
        status: wire.BedStatus,
        clock: Clock,
        refused: Callable[[str, int], None],
        accepted: Callable[[str], None],
        *,
        ours: bool = True,
    ) -> None:
        self.status, self._ours = status, ours
        self._clock, self._refused, self._accepted = clock, refused, accepted
        self._changed = asyncio.Event()

    def update(self, status: wire.BedStatus) -> None:
        """Publish a new status."""
        self.status = status
        self._changed.set()

    def be_ours(self, ours: bool) -> None:
        """Begin to say what the bed's status is, or stop doing so."""
        self._ours = ours
        self._changed.set()

    def again(self) -> None:
        """Publish the status once more."""
        self._changed.set()

    def will(self) -> Message | None:
        """Return the status of a bed whose monitor is gone; None if the bed is another one's."""
        if not self._ours:
            return None
        gone = msgspec.structs.replace(self.status, online=False, state="offline", detail="the monitor is gone")
        return Message(wire.topic(gone), wire.encode_json(gone))

    async def serve(self, client: Client) -> None:
        """Publish what changes; return when the will no longer fits the session."""
        session, ours = self.status.session, self._ours

        async def send() -> None:
            while (self.status.session, self._ours) == (session, ours):
                self._changed.clear()
                if not ours:
                    await self._changed.wait()
                    continue
                topic = wire.topic(self.status)
                code = await client.send(Message(topic, wire.encode_json(self.status)), retain=True)
                if code < REFUSED:
                    self._accepted(topic)
                    await self._changed.wait()
                else:
                    self._refused(topic, code)
                    await self._clock.sleep_until(self._clock.monotonic_ns() + round(_STATUS_AGAIN_S * 1e9))
            watch.cancel()

        async def watch_connection() -> None:
            async for _ in client.messages:
                pass

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(watch_connection())
            group.create_task(send())
