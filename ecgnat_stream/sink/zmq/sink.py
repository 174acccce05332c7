"""The ZeroMQ publisher: ``[topic, sequence, payload]`` on an XPUB socket, with the topics and payloads of MQTT.

In come events from the bus, out they go at once, through a thread of its own. A subscriber that does not keep up loses messages
at its high-water mark and sees that in the sequence. A new subscription is sent the present state of what it asks for. Peers
that ask for too much are sent away.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import zmq

from ecgnat_stream import wire
from ecgnat_stream.bus import Bus, Subscription
from ecgnat_stream.clock import Clock
from ecgnat_stream.errors import SinkError
from ecgnat_stream.events import Alarm, Command, DeviceStatus, Event, Technical, Wave
from ecgnat_stream.sink.zmq.config import ZmqConfig, check_exposure, own_keys
from ecgnat_stream.sink.zmq.keys import ClientKeys
from ecgnat_stream.sink.zmq.publisher import Handover, Message, Publisher, listen
from ecgnat_stream.sink.zmq.state import PresentState, numbers_from

__all__ = ["ZmqSink", "try_endpoint"]

CONDITION, FLOOD, LOST = "publisher-failed", "peer-flood", "alarms-lost"

_END_S = 3.0
"""Longest wait for the thread to send what is left, s; it does not keep the process alive."""


def try_endpoint(config: ZmqConfig) -> None:
    """Bind the endpoint and leave it again.

    Raises
    ------
    ConfigError, SinkError
        If it cannot be bound, or as :class:`ZmqSink`.
    """
    check_exposure(config)
    own_keys(config)
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        try:
            listen(socket, config)
        except zmq.ZMQError as error:
            raise SinkError(f"zmq.bind: cannot publish at {config.bind}: {error}; choose another endpoint") from error


class ZmqSink:
    """Publishes what the bus carries.

    Parameters
    ----------
    config
        See :class:`ZmqConfig`.
    site, worker
        Where events that concern no single bed go, ``ecg/v1/{site}/engine/{worker}/...``.

    Attributes
    ----------
    subscription
        What it reads.
    alarms_lost
        Alarm events that were given up, because nothing was bound.

    Raises
    ------
    ConfigError
        For an endpoint that other machines reach without keys, without ``insecure``.
    SinkError
        For keys that cannot be read, or an allow-list without a key pair.
    """

    def __init__(self, config: ZmqConfig, bus: Bus, clock: Clock, *, site: str = "home", worker: str = "monitor") -> None:
        check_exposure(config)
        self._config, self._bus, self._clock = config, bus, clock
        self._engine = f"{site}/engine/{worker}"
        self._keys = own_keys(config)
        self._clients = ClientKeys(Path(config.clients_dir)) if config.clients_dir else None
        types = (Event, Wave) if config.wave else (Event,)
        self.subscription: Subscription = bus.subscribe("zmq", *types)
        self.alarms_lost = 0
        self._sent_before = self._handed = 0
        self._state = PresentState(numbers_from(clock.utc()))
        self._waiting = Handover()
        self._cutters: dict[str, wire.WaveCutter] = {}
        self._publisher: Publisher | None = None
        self._bound = asyncio.Event()
        self._failed = self._losing = False

    @property
    def alarms_delivered(self) -> int:
        """Alarm events that the socket has taken."""
        return self._sent_before + (self._publisher.alarms if self._publisher is not None else 0)

    @property
    def missing(self) -> dict[str, str]:
        """What no socket ever took, at the end."""
        lost = self.alarms_lost + self.subscription.alarms_lost
        return {"zmq": f"{lost} alarm events were not published: nothing was bound at {self._config.bind}"} if lost else {}

    async def endpoint(self) -> str:
        """Return the endpoint once it is bound, with its port."""
        await self._bound.wait()
        assert self._publisher is not None
        return self._publisher.endpoint

    async def run(self) -> None:
        """Publish until the bus is closed; after an error it may be called again, and goes on."""
        serving = asyncio.create_task(self._serve(), name="zmq socket")
        reading = asyncio.create_task(self._read_all(), name="zmq events")
        try:
            await asyncio.wait((reading, serving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, serving):
                task.cancel()
            results = await asyncio.gather(reading, serving, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        self._bus.unsubscribe(self.subscription)

    async def _serve(self) -> None:
        """Keep a publisher at work; one that cannot bind is tried again, one that fails otherwise ends this."""
        while True:
            arguments = (self._config, self._keys, self._clients, self._waiting, self._state, self._clock, self._flooded)
            publisher = self._publisher = Publisher(*arguments)
            try:
                await self._until_ended(publisher)
            finally:
                await self._let_go(publisher)
            if not isinstance(publisher.error, zmq.ZMQError):
                raise publisher.error or SinkError("the ZeroMQ publisher has ended by itself")
            if not self._failed:
                self._tell(CONDITION, True, f"cannot publish at {self._config.bind}: {publisher.error}; choose another zmq.bind")
            self._failed = True
            pause_s = self._config.retry_s * (1 - 0.5 * random.random())
            await self._clock.sleep_until(self._clock.monotonic_ns() + round(pause_s * 1e9))

    async def _until_ended(self, publisher: Publisher) -> None:
        opened, ended = asyncio.create_task(publisher.opened.wait()), asyncio.create_task(publisher.ended.wait())
        try:
            await asyncio.wait((opened, ended), return_when=asyncio.FIRST_COMPLETED)
            if publisher.opened.is_set():
                self._bound.set()
                self._is_well()
            await ended
        finally:
            opened.cancel()
            ended.cancel()

    def _is_well(self) -> None:
        if self._losing:
            self._tell(LOST, False, "")
        if self._failed:
            self._tell(CONDITION, False, "")
        self._failed = self._losing = False

    async def _let_go(self, publisher: Publisher) -> None:
        """Let a publisher send what waits; what it leaves becomes the present state for the next."""
        self._bound.clear()
        publisher.stop()
        waiting = self._waiting
        try:
            async with asyncio.timeout(_END_S):
                await publisher.ended.wait()
            waiting.close()
        except TimeoutError:
            # Its thread still holds them: what comes next begins anew.
            self._state, self._waiting = PresentState(numbers_from(self._clock.utc())), Handover()
        self._publisher = None
        self._sent_before += publisher.alarms
        lost, self._handed = self._handed - publisher.alarms, 0
        while (message := waiting.pop()) is not None:
            self._keep(message)
        self._lose(lost)

    async def _read_all(self) -> None:
        while True:
            await self._waiting.room()
            try:
                event = await self.subscription.get()
            except StopAsyncIteration:
                break
            try:
                self._publish(event)
            except Exception:
                self.alarms_lost += isinstance(event, Alarm)
                raise
        for bed, cutter in self._cutters.items():
            self._hand_over_frames(bed, cutter.flush())
        self._cutters.clear()

    def _publish(self, event: object) -> None:
        match event:
            case Wave():
                self._wave(event)
            case Command():
                pass
            case Event():
                topic, payload = wire.topic(event, self._engine), wire.encode_json(event)
                kept = isinstance(event, (DeviceStatus, *wire.RETAINED))
                if isinstance(event, Alarm):
                    state = wire.alarm_state_topic(event, self._engine)
                    self._hand_over(Message(((topic, payload, kept), (state, payload, True)), alarm=True))
                else:
                    self._hand_over(Message(((topic, payload, kept),)))

    def _wave(self, wave: Wave) -> None:
        cutter = self._cutters.get(wave.bed)
        if cutter is None or not cutter.fits(wave):
            if cutter is not None:
                self._hand_over_frames(wave.bed, cutter.flush())
            cutter = wire.WaveCutter(wave.fs, wave.leads, wave.uv_per_lsb, cutter.sequence if cutter else 0)
            self._cutters[wave.bed] = cutter
        self._hand_over_frames(wave.bed, cutter.cut(wave, wire.epoch_ns(self._clock.utc(wave.block.t_ns))))

    def _hand_over_frames(self, bed: str, frames: list[wire.WaveFrame]) -> None:
        for frame in frames:
            self._hand_over(Message(((wire.wave_topic(bed), frame.encode(), False),)))

    def _hand_over(self, message: Message) -> None:
        if self._publisher is not None:
            self._handed += message.alarm
            self._waiting.put(message)
        else:
            self._keep(message)
            self._lose(int(message.alarm))

    def _keep(self, message: Message) -> None:
        """Nothing is bound: nobody can hear it, but whoever comes later is sent the present state."""
        for topic, payload, kept in message.parts:
            self._state.take(topic, payload, kept=kept)

    def _lose(self, alarms: int) -> None:
        self.alarms_lost += alarms
        if alarms and not self._losing:
            self._losing = True
            self._tell(LOST, True, f"nothing is bound at {self._config.bind}: subscribers will find alarm states, not events")

    def _flooded(self, text: str) -> None:
        self._tell(FLOOD, True, text)

    def _tell(self, condition: str, present: bool, detail: str) -> None:
        self._bus.publish(
            Technical(bed="", time=self._clock.utc(), condition=condition, present=present, detail=detail, source="zmq")
        )
