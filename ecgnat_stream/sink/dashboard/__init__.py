"""The live terminal dashboard: one bed with sweeping traces, or a wall of beds.

In come traces, vitals, rhythm, quality, alarms and states from the bus; out go a person's commands. When drawing is late the
newest values win; alarms are never dropped. :class:`Dashboard` is imported from ``.app`` so that textual is loaded only when
there is something to draw.
"""

from ecgnat_stream.sink.dashboard.config import DashboardConfig

__all__ = ["DashboardConfig"]
