"""For those who write adapters and tests: a scripted device, a clock that never waits, the conformance kit, a bus read out."""

from ecgnat_stream.testing.bus import flushed
from ecgnat_stream.testing.conformance import check_device
from ecgnat_stream.testing.scripted import InstantClock, ScriptedDevice, ScriptedOptions, Step

__all__ = ["InstantClock", "ScriptedDevice", "ScriptedOptions", "Step", "check_device", "flushed"]
