"""Real-time ECG rhythm monitoring: the front door.

:func:`analyse` puts a recording through the monitor at once, :class:`Monitor` watches beds, :class:`Predictor` is the network
alone. What is named here is imported when it is first used, so that ``import ecgnat_stream`` costs nothing:

>>> import ecgnat_stream as ecgnat
>>> ecgnat.LEADS[:3]
('I', 'II', 'III')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from ecgnat_stream.analysis import Analysis, Summary, analyse, analyse_many, condition_samples, diagnose
    from ecgnat_stream.config import BedConfig, Config, load_config, parse_config
    from ecgnat_stream.device import Device, stream_device
    from ecgnat_stream.errors import (
        CheckpointError,
        ConfigError,
        DeviceError,
        EcgnatError,
        InputError,
        SinkError,
    )
    from ecgnat_stream.events import (
        Alarm,
        Beat,
        Command,
        CommandResult,
        Delivery,
        DeviceStatus,
        EngineStatus,
        Event,
        LeadQuality,
        Meta,
        Quality,
        Rhythm,
        Technical,
        Trace,
        Vitals,
        Wave,
    )
    from ecgnat_stream.model import ModelConfig, Prediction, Predictor
    from ecgnat_stream.monitor import Monitor
    from ecgnat_stream.signal import FS, LEADS, MODEL_FS, Conditioned, SampleBlock, StreamInfo
    from ecgnat_stream.sink.mqtt import Receiver

_HOMES = {
    "analysis": ("Analysis", "Summary", "analyse", "analyse_many", "condition_samples", "diagnose"),
    "config": ("BedConfig", "Config", "load_config", "parse_config"),
    "device": ("Device", "stream_device"),
    "errors": ("CheckpointError", "ConfigError", "DeviceError", "EcgnatError", "InputError", "SinkError"),
    "events": (
        *("Alarm", "Beat", "Command", "CommandResult", "Delivery", "DeviceStatus", "EngineStatus", "Event", "LeadQuality"),
        *("Meta", "Quality", "Rhythm", "Technical", "Trace", "Vitals", "Wave"),
    ),
    "model": ("ModelConfig", "Prediction", "Predictor"),
    "monitor": ("Monitor",),
    "sink.mqtt": ("Receiver",),
    "signal": ("FS", "LEADS", "MODEL_FS", "Conditioned", "SampleBlock", "StreamInfo"),
}
"""Module to the names that come from it: the same as above, for those who run."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "FS",
    "LEADS",
    "MODEL_FS",
    "Alarm",
    "Analysis",
    "Beat",
    "BedConfig",
    "CheckpointError",
    "Command",
    "CommandResult",
    "Conditioned",
    "Config",
    "ConfigError",
    "Delivery",
    "Device",
    "DeviceError",
    "DeviceStatus",
    "EcgnatError",
    "EngineStatus",
    "Event",
    "InputError",
    "LeadQuality",
    "Meta",
    "ModelConfig",
    "Monitor",
    "Prediction",
    "Predictor",
    "Quality",
    "Receiver",
    "Rhythm",
    "SampleBlock",
    "SinkError",
    "StreamInfo",
    "Summary",
    "Technical",
    "Trace",
    "Vitals",
    "Wave",
    "__version__",
    "analyse",
    "analyse_many",
    "condition_samples",
    "diagnose",
    "load_config",
    "parse_config",
    "stream_device",
]


def __getattr__(name: str) -> object:
    """Import what is asked for; later uses find it without this function (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return what can be asked for."""
    return sorted({*globals(), *__all__})
