"""The MQTT sink: alarms, labels, vitals and waveforms to a broker; commands back. The client is loaded only when the sink is."""

from typing import TYPE_CHECKING

from ecgnat_stream.sink.mqtt.config import MqttConfig

if TYPE_CHECKING:
    from ecgnat_stream.sink.mqtt.sink import MqttSink

__all__ = ["MqttConfig", "MqttSink"]


def __getattr__(name: str) -> object:
    if name == "MqttSink":
        from ecgnat_stream.sink.mqtt.sink import MqttSink

        return MqttSink
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
