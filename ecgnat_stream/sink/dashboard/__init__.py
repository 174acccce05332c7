"""The live terminal dashboard: one bed with sweeping traces, or a wall of beds.

In come traces, vitals, rhythm, quality, alarms and states from the bus; out go a person's commands. When drawing is late the
newest values win; alarms are never dropped. textual is loaded only when :class:`Dashboard` is asked for, so that reading a
configuration stays light.
"""

from typing import TYPE_CHECKING

from ecgnat_stream.sink.dashboard.config import DashboardConfig
from ecgnat_stream.sink.dashboard.terminal import has_keyboard

if TYPE_CHECKING:
    from ecgnat_stream.sink.dashboard.app import Dashboard

__all__ = ["Dashboard", "DashboardConfig", "has_keyboard"]


def __getattr__(name: str) -> object:
    if name == "Dashboard":
        from ecgnat_stream.sink.dashboard.app import Dashboard

        return Dashboard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
