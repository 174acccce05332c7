"""The MQTT sink: alarms, labels, vitals and waveforms to a broker; commands back; and the
receiver of such alarms. The client is loaded only when one of them is."""

from typing import TYPE_CHECKING

from ecgnat_stream.sink.mqtt.config import MqttConfig

if TYPE_CHECKING:
    from ecgnat_stream.sink.mqtt.receive import Receiver
    from ecgnat_stream.sink.mqtt.sink import MqttSink

__all__ = ["MqttConfig", "MqttSink", "Receiver"]


def __getattr__(name: str) -> object:
    if name == "MqttSink":
        from ecgnat_stream.sink.mqtt.sink import MqttSink

        return MqttSink
    if name == "Receiver":
        from ecgnat_stream.sink.mqtt.receive import Receiver

        return Receiver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
