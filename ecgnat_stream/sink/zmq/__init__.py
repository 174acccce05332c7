"""The ZeroMQ publisher: one thread that sends, one that watches who connects."""

from ecgnat_stream.sink.zmq.config import ZmqConfig
from ecgnat_stream.sink.zmq.sink import ZmqSink, try_endpoint

__all__ = ["ZmqConfig", "ZmqSink", "try_endpoint"]
