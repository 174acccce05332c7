"""How things look: colours of the priorities, their marks, gentle flashing, and the large digits.

Colours and marks as IEC 60601-1-8 has them: red, yellow, cyan and ``***``, ``**``, ``*``, so that a terminal without colour says
the same. High and medium alarms flash at 1.5 and 0.5 Hz (the standard's ranges are 1.4 to 2.8 and 0.4 to 0.8 Hz, well below what
could harm), by reverse video, so that the text can be read at any moment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme

from ecgnat_stream.codes import Priority
from ecgnat_stream.events import Alarm

__all__ = ["Palette", "big_digits", "palette_of", "state_word"]

_FLASH_HZ: dict[Priority, float] = {"high": 1.5, "medium": 0.5, "low": 0.0}

_FONT = {
    "0": "111 101 101 101 111", "1": "010 110 010 010 111", "2": "111 001 111 100 111", "3": "111 001 111 001 111",
    "4": "101 101 111 001 001", "5": "111 100 111 001 111", "6": "111 100 111 101 111", "7": "111 001 001 001 001",
    "8": "111 101 111 101 111", "9": "111 101 111 001 111", "-": "000 000 111 000 000", " ": "000 000 000 000 000",
}  # fmt: skip


def big_digits(text: str, width: int = 2, height: int = 1) -> list[str]:
    """Return the 5 ``height`` lines of a number drawn in blocks of ``width`` x ``height`` cells."""
    lines = []
    for row in range(5):
        pixels = "0".join(_FONT[char].split()[row] for char in text)
        line = "".join(("█" if pixel == "1" else " ") * width for pixel in pixels)
        lines += [line] * height
    return lines


def state_word(alarm: Alarm) -> str:
    """Return what a person reads beside an alarm that is not simply on."""
    if alarm.presence in ("acknowledged", "latched"):
        return alarm.presence
    if alarm.presence == "off":
        return "ended"
    if alarm.inactivation in ("audio-paused", "alarm-paused"):
        return "paused"
    return "" if alarm.inactivation == "none" else alarm.inactivation.replace("-", " ")


@dataclass(frozen=True)
class Palette:
    """The styles of one colour mode; without colour they differ by bold, dim, underline and reverse."""

    theme: Theme
    ansi: bool
    priorities: dict[Priority, tuple[Style, Style]]
    trace: Style
    value: Style
    title: Style
    text: Style
    faint: Style
    bar: Style
    chosen: Style
    notice: Style

    def doubtful(self, alarm: Alarm) -> Style:
        """Return the style of a number that means nothing while ``alarm`` is there."""
        return Style(color=self.priorities[alarm.priority][1].color, dim=True)

    def alarm(self, alarm: Alarm, now_ns: int) -> Style:
        """Return the style of an alarm line: reverse and flashing while unattended, plain once latched or acknowledged."""
        filled, plain = self.priorities[alarm.priority]
        if state_word(alarm):
            return plain
        flash_hz = _FLASH_HZ[alarm.priority]
        lit = not flash_hz or (now_ns / 1e9 * flash_hz) % 1.0 < 0.6
        return filled if lit else plain


def _theme(name: str, foreground: str, background: str, ansi: bool) -> Theme:
    return Theme(
        name=name, primary=foreground, foreground=foreground, background=background, surface=background, panel=background,
        dark=True, ansi=ansi, variables=dict(BUILTIN_THEMES["ansi-dark"].variables) if ansi else {},
    )  # fmt: skip


def _coloured(red: str, yellow: str, cyan: str, green: str, white: str, grey: str, black: str) -> dict[str, Style]:
    return {
        "trace": Style(color=green), "value": Style(color=green, bold=True), "title": Style(color=grey),
        "text": Style(color=white), "faint": Style(color=grey), "bar": Style(color=black, bgcolor=grey),
        "chosen": Style(color=black, bgcolor=white, bold=True), "notice": Style(color=black, bgcolor=yellow, bold=True),
    }  # fmt: skip


def palette_of(colour: Literal["auto", "16", "none"]) -> Palette:
    """Return the styles for a colour mode; ``auto`` obeys ``NO_COLOR`` (no-color.org)."""
    if colour == "auto" and os.environ.get("NO_COLOR"):
        colour = "none"
    if colour == "none":
        plain, bold, reverse = Style(), Style(bold=True), Style(reverse=True)
        return Palette(
            theme=_theme("ecgnat-none", "ansi_default", "ansi_default", True), ansi=True,
            priorities={"high": (Style(reverse=True, bold=True), bold), "medium": (reverse, bold), "low": (reverse, plain)},
            trace=plain, value=bold, title=Style(dim=True), text=plain, faint=Style(dim=True), bar=reverse,
            chosen=Style(reverse=True, bold=True), notice=Style(reverse=True, bold=True),
        )  # fmt: skip
    if colour == "16":
        names = ("red", "bright_yellow", "bright_cyan", "bright_green", "bright_white", "white", "black")
        theme, bright_red = _theme("ecgnat-16", "ansi_bright_white", "ansi_black", True), "bright_red"
    else:
        names = ("#e00000", "#ffff00", "#00ffff", "#00e070", "#ffffff", "#aaaaaa", "#000000")
        theme, bright_red = _theme("ecgnat", "#ffffff", "#000000", False), "#ff5555"
    red, yellow, cyan, _, white, _, black = names
    return Palette(
        theme=theme, ansi=colour == "16",
        priorities={
            "high": (Style(color=white, bgcolor=red, bold=True), Style(color=bright_red, bold=True)),
            "medium": (Style(color=black, bgcolor=yellow, bold=True), Style(color=yellow)),
            "low": (Style(color=black, bgcolor=cyan), Style(color=cyan)),
        },
        **_coloured(*names),
    )  # fmt: skip
