"""The device stage: what a device is (``contract``), one made of arrays (``stream``), the link to one (``link``)."""

from ecgnat_stream.device.contract import ENTRY_POINTS, FS_RANGE, Adapter, Device, adapter, device_names, open_device
from ecgnat_stream.device.link import OPENING, LinkState, SuperviseConfig, supervise, try_device
from ecgnat_stream.device.stream import stream_device

__all__ = [
    "ENTRY_POINTS",
    "FS_RANGE",
    "OPENING",
    "Adapter",
    "Device",
    "LinkState",
    "SuperviseConfig",
    "adapter",
    "device_names",
    "open_device",
    "stream_device",
    "supervise",
    "try_device",
]
