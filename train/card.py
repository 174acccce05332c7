"""Write what was measured into a shipped checkpoint: key figures into its configuration, the targets table into its model card.

    python -m train.card --name ecgnat-nano --results results/ecgnat-nano.json

In the card everything between the two marker lines is replaced.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import msgspec

from ecgnat_stream.model import load_checkpoint, save_checkpoint
from ecgnat_stream.weights import record_sums, shipped
from train.judge.tables import find
from train.judge.targets import TARGETS, target_table

__all__ = ["BEGIN", "END", "write_card"]

BEGIN, END = "<!-- measured: written by train.card -->", "<!-- end of measured -->"


def write_card(checkpoint: Path, results: dict[str, Any]) -> None:
    """Write the figures of an evaluation into a checkpoint.

    Raises
    ------
    ValueError
        If the evaluation is of another checkpoint, or the card has no markers.
    """
    if results["checkpoint"] != checkpoint.name:
        raise ValueError(f"these are the figures of {results['checkpoint']}, not of {checkpoint.name}")
    text = (checkpoint / "README.md").read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{checkpoint / 'README.md'} needs the lines {BEGIN!r} and {END!r}, once each")
    measured = f"{BEGIN}\n`{results['command']}`, {results['split']} records:\n\n{target_table(results)}\n{END}"
    text = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: measured, text, flags=re.DOTALL)
    network, card = load_checkpoint(checkpoint)
    figures = {f"{target.task}: {target.metric}": find(results, target.path) for target in TARGETS}
    card = msgspec.structs.replace(card, metrics=card.metrics | {results["split"]: figures})
    save_checkpoint(checkpoint, network, card, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="name of the shipped checkpoint")
    parser.add_argument("--results", type=Path, required=True, help="what train.evaluate wrote")
    arguments = parser.parse_args()
    write_card(shipped(arguments.name), msgspec.json.decode(arguments.results.read_bytes()))
    record_sums(shipped(arguments.name))
