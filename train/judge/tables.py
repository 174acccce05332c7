"""Figures as Markdown: a value with its interval, tables, and the way to a figure in nested results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["cell", "find", "is_interval", "rows"]


def cell(value: Any) -> str:
    """Return a figure as text; ``[value, low, high]`` as value and interval, None as a dash.

    The ends of an interval keep their sign, "-0.000": whether it holds 0 is what it is read for.
    """
    if is_interval(value):
        digits = _digits(*value)
        low, high = (f"{x + 0.0:.{digits}f}" for x in value[1:])
        return f"{value[0]:z.{digits}f} ({low} to {high})"
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:z.{_digits(value)}f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def is_interval(value: Any) -> bool:
    """Tell whether a value is ``[value, low, high]``; a bootstrap interval need not hold the value."""
    there = isinstance(value, list) and len(value) == 3 and all(type(x) in (int, float) for x in value)
    return there and value[1] <= value[2]


def rows(*lines: Sequence[Any]) -> str:
    """Return a Markdown table; the first line is its head."""
    text = ["| " + " | ".join(cell(value) for value in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(lines[0]), *text[1:]]) + "\n"


def find(node: Any, path: Sequence[str]) -> Any:
    """Return what lies under keys, outermost first; None where it ends."""
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _digits(*values: float) -> int:
    most = max(map(abs, values))
    return 3 if most < 10 else 1 if most < 100 else 0
