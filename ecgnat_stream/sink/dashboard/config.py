"""What can be set about the dashboard. No textual here, so that reading a configuration stays light."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from ecgnat_stream.settings import Settings, Within

__all__ = ["DashboardConfig"]


class DashboardConfig(Settings, frozen=True, kw_only=True):
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

    section: ClassVar[str] = "dashboard"

    colour: Literal["auto", "16", "none"] = "auto"
    view: Literal["auto", "bed", "wall"] = "auto"
    bell: bool = True
    speed_mm_s: Annotated[float, Within(6.25, 50, "these are the speeds of ECG paper")] = 25.0
    gain_mm_mv: Annotated[float, Within(2.5, 80, "outside it a QRS complex is a dot or fills the screen")] = 10.0
    dots_per_mm: Annotated[float, Within(0, 4, "a terminal has no finer dots")] = 0.0
    traces: Annotated[int, Within(1, 3, "more are too small to be read")] = 3
    fps: Annotated[float, Within(1, 30, "slower is no sweep, faster is not seen")] = 12.0
    stale_s: Annotated[float, Within(0.1, 60, "an older value is no longer true")] = 10.0
    pause_s: Annotated[float, Within(30, 180, "no longer pause is accepted")] = 120.0
