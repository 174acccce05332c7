"""Colours of what is found, on white paper: one home for pages and for pictures."""

from __future__ import annotations

from ecgnat_stream.codes import Priority

__all__ = ["DARK_TEXT", "PAPER", "PRIORITY_COLOURS", "rhythm_colour"]

PRIORITY_COLOURS: dict[Priority, str] = {"high": "#d32f2f", "medium": "#c99700", "low": "#0097a7"}
"""Colours of alarms, IEC 60601-1-8: red, yellow, cyan, each dark enough for white paper."""

_RHYTHM_COLOURS = {
    "SINUS": "#b0bec5",
    "N": "#b0bec5",
    "SBRAD": "#90b4d8",
    "STACH": "#d9b98a",
    "AF": "#7e57c2",
    "AFIB": "#7e57c2",
    "AFL": "#7e57c2",
    "SVT": "#00838f",
    "SVTA": "#00838f",
    "VT": "#d84315",
    "VF": "#8e0000",
    "VFL": "#8e0000",
    "ASYSTOLE": "#1a1a1a",
    "PACED": "#2e7d32",
    "NOISE": "#d9d9d9",
    "UNKNOWN": "#ececec",
}
_OTHER_RHYTHM = "#7e57c2"
DARK_TEXT = ("#b0bec5", "#90b4d8", "#d9b98a", "#d9d9d9", "#ececec")
"""Colours that need dark text on them."""

PAPER = ("#f3cfcf", "#e6a5a5")
"""Lines of ECG paper: every millimetre, every five."""


def rhythm_colour(label: str) -> str:
    """Return the colour of a rhythm's label or rhythm note."""
    return _RHYTHM_COLOURS.get(label.lstrip("("), _OTHER_RHYTHM)
