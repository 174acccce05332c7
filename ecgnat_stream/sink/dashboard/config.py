"""What can be set about the dashboard. No textual here, so that reading a configuration stays light."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = ["DashboardConfig"]


class DashboardConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The dashboard's options.

    Parameters
    ----------
    colour
        ``auto``: what the terminal offers (``NO_COLOR`` in the environment means none); ``16``: only the 16 ANSI colours;
        ``none``: marks, bold and reverse video alone.
    view
        What to open: ``bed``, ``wall``, or by the number of beds.
    bell
        Ring the terminal bell for alarms.
    speed_mm_s
        Sweep speed, mm/s; 25 as on paper, 12.5 shows twice as much time.
    gain_mm_mv
        Gain at the start, mm/mV; the keys + and - change it.
    dots_per_mm
        Braille dots that stand for a millimetre; 0: by the size of the terminal.
    traces
        Most leads shown at once in the one-bed view.
    fps
        Redraws per s.
    stale_s
        A value older than this is no longer shown, s.
    pause_s
        Length of the pause that the key p orders, s.
    """

    colour: Literal["auto", "16", "none"] = "auto"
    view: Literal["auto", "bed", "wall"] = "auto"
    bell: bool = True
    speed_mm_s: Annotated[float, msgspec.Meta(ge=6.25, le=50)] = 25.0
    gain_mm_mv: Annotated[float, msgspec.Meta(ge=2.5, le=80)] = 10.0
    dots_per_mm: Annotated[float, msgspec.Meta(ge=0, le=4)] = 0.0
    traces: Annotated[int, msgspec.Meta(ge=1, le=3)] = 3
    fps: Annotated[float, msgspec.Meta(ge=1, le=30)] = 12.0
    stale_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    pause_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 120.0
