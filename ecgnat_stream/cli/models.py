"""``ecgnat models``: the networks that ship, what each is for, and how good it is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgnat_stream.model import NetworkEntry

__all__ = ["add"]

_FIGURES = {
    "screen\nF1": "one-lead screening: mean F1 of N, A, O",
    "VF\nsens.": "VF in 4 s: sensitivity",
    "VF\nspec.": "VF in 4 s: specificity",
    "R\nF1": "R peaks, mitdb: F1",
    "V\nF1": "V beats, mitdb: F1",
    "diagn.\nAUROC": "PTB-XL superclasses: macro-AUROC",
}
"""Column to figure of the card."""


def add(commands: Any) -> None:
    """Add ``ecgnat models`` to the parser."""
    parser = commands.add_parser(
        "models",
        help="list the networks that ship, what each is for, how good it is",
        description="List the networks that ship, what each is for, and how good it is on test records, as its card says.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per network, with intervals and classes")
    parser.set_defaults(command=_models)


def _models(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.model import list_models

    entries = list_models()
    if arguments.json:
        import msgspec

        for entry in entries:
            print(msgspec.json.encode(entry).decode())
        return 0
    _show(entries)
    return 0


def _show(entries: Sequence[NetworkEntry]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("network", no_wrap=True)
    table.add_column("for", no_wrap=True)
    for column in ("M", *_FIGURES):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        if not entry.installed:
            table.add_row(entry.name, "not installed", *["-"] * (1 + len(_FIGURES)))
            continue
        purpose = "monitor" if entry.monitors else "diagnose" if "window" in entry.heads else ", ".join(entry.heads)
        size = f"{(entry.parameters or 0) / 1e6:.2f}"
        figures = [f"{entry.measured[name][0]:.3f}" if name in entry.measured else "-" for name in _FIGURES.values()]
        table.add_row(entry.name, purpose, size, *figures)
    console.print(table)
    if not all(entry.installed for entry in entries):
        console.print("Install the others: pip install 'ecgnat-stream[models]'")
    for names, trained_on in _trainings(entries):
        records = ", ".join(f"{database} {count}" for database, count in trained_on.items())
        console.print(f"{names} trained on records of {records}.")
    console.print(
        "M: million parameters. screen: normal, AF, other in one lead; VF: fibrillation in 4 s; R, V: R peaks and\n"
        "ventricular beats of mitdb; diagn.: five superclasses of PTB-XL, 12 leads. All on test records; --json has\n"
        "the intervals, docs/measured all tables.\n"
        'Run one with --model NAME, or [model] name = "NAME" in a configuration.'
    )


def _trainings(entries: Sequence[NetworkEntry]) -> list[tuple[str, dict[str, int]]]:
    """Return what networks were trained on, those of the same records together."""
    found: list[tuple[list[str], dict[str, int]]] = []
    for entry in entries:
        same = next((names for names, trained_on in found if trained_on == entry.trained_on), None)
        if same is not None:
            same.append(entry.name)
        elif entry.trained_on:
            found.append(([entry.name], entry.trained_on))
    return [("All were" if len(found) == 1 else f"{', '.join(names)}:", trained_on) for names, trained_on in found]
