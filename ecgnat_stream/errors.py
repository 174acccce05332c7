"""The errors that cross a stage border.

Every message says what is wrong, where, and what to do about it. ``ValueError`` stays for what a caller passed
wrongly to one function; these are for what goes wrong between the parts. Their words may quote a file, a device or a peer: shown
as text they are cleaned, one line each.
"""

from ecgnat_stream.words import cleaned

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "EcgnatError",
    "FrameError",
    "InputError",
    "SinkError",
    "WatchdogError",
]

_LONGEST = 4000
"""An error that proposes something may list every file, lead or setting that there is."""


class EcgnatError(Exception):
    """Anything the runtime reports to its user."""

    def __str__(self) -> str:
        return cleaned(super().__str__(), _LONGEST)


class ConfigError(EcgnatError):
    """A configuration key, value or combination that cannot be used."""


class DeviceError(EcgnatError):
    """A device that cannot be opened, or that delivers what it must not.

    Parameters
    ----------
    permanent
        True where trying again cannot mend it: a file that is no record, an option that does not fit.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class InputError(EcgnatError, ValueError):
    """Samples that cannot be analysed as they were given: their shape, rate, unit or leads."""


class FrameError(EcgnatError):
    """Bytes on a wire that are not a wave frame."""


class CheckpointError(EcgnatError):
    """A directory that does not hold a usable model."""


class SinkError(EcgnatError):
    """A sink that cannot be started: a path that is not writable, a port in use."""


class WatchdogError(EcgnatError):
    """The monitor cannot be trusted to say what it does not see: it has to be started again."""
