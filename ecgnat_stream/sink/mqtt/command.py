"""A person's command to a monitor over MQTT, and its answer: what ``ecgnat command`` sends.

The request goes to ``{bed}/alarm/command``, the answer comes on ``{bed}/alarm/command/result``; the request's ``correlation``
tells our answer from others.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

import aiomqtt
import msgspec

from ecgnat_stream import wire
from ecgnat_stream.errors import FrameError, SinkError
from ecgnat_stream.events import CommandResult
from ecgnat_stream.sink.mqtt.client import NOBODY, REFUSED, Client, Message, reason
from ecgnat_stream.sink.mqtt.config import MqttConfig, broker_access
from ecgnat_stream.sink.mqtt.reach import connection, protocols, refused_protocol

__all__ = ["send_command"]

_OTHERS_S = 0.5
"""After a refusal another answer is waited for: every monitor of a site hears the command, and only one has the bed."""


async def send_command(config: MqttConfig, bed: str, request: wire.CommandRequest, answer_s: float) -> CommandResult:
    """Send a command to the monitor of a bed and return its answer.

    Parameters
    ----------
    bed
        ``site/unit/bed``, or ``site/engine/worker`` for the worker's own alarms.
    answer_s
        Longest wait for the answer, s.

    Raises
    ------
    ConfigError
        As :func:`~ecgnat_stream.sink.mqtt.config.broker_access`.
    SinkError
        If the broker cannot be reached or refuses, or no monitor answers.
    """
    to = broker_access(config)
    for v5 in protocols(config):
        try:
            return await _ask(connection(config, to, v5, "command"), bed, request, answer_s)
        except TimeoutError:
            raise SinkError(
                f"no answer within {answer_s:g} s: is there a monitor of {bed}, and is it connected to {to.host}:{to.port}?"
            ) from None
        except aiomqtt.MqttError as error:
            if v5 and config.protocol == "auto" and refused_protocol(error):
                continue
            raise SinkError(f"{to.host}:{to.port}: {error}") from error
    raise AssertionError("the last protocol returns or raises")


async def _ask(client: Client, bed: str, request: wire.CommandRequest, answer_s: float) -> CommandResult:
    token = uuid4().hex
    topic = f"{wire.ROOT}/{bed}/alarm/command"
    payload = msgspec.json.encode(msgspec.structs.replace(request, correlation=token))
    async with client:
        (code,) = await client.ask([f"{topic}/result"])
        if code >= REFUSED:
            raise SinkError(f"the broker does not let this account read the answer, {topic}/result: {reason(code)}")
        code = await client.send(Message(topic, payload))
        if code >= REFUSED:
            raise SinkError(f"the broker does not let this account give commands, {topic}: {reason(code)}")
        if code == NOBODY:
            raise SinkError(f"nobody takes commands for {bed}: no monitor with this bed is connected to the broker")
        return await _answer(client, token, answer_s)


async def _answer(client: aiomqtt.Client, token: str, answer_s: float) -> CommandResult:
    """Return the first acceptance of our command, or the first refusal if none follows it."""
    refusal: CommandResult | None = None
    try:
        async with asyncio.timeout(answer_s) as limit:
            async for message in client.messages:
                result = _result(message)
                if result is None or result.correlation != token:
                    continue
                if result.accepted:
                    return result
                refusal = refusal or result
                limit.reschedule(min(limit.when() or 0.0, asyncio.get_running_loop().time() + _OTHERS_S))
    except TimeoutError:
        if refusal is None:
            raise
    assert refusal is not None
    return refusal


def _result(message: aiomqtt.Message) -> CommandResult | None:
    """Return the answer that a message holds; others may write to the topic too."""
    try:
        event = wire.decode_json(message.payload if isinstance(message.payload, bytes) else b"")
    except FrameError:
        return None
    return event if isinstance(event, CommandResult) else None
