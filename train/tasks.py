"""Print the classification tasks of a prepared cache: what each has to learn from and to be measured on.

    python -m train.tasks --cache runs/cache
    python -m train.tasks --cache runs/cache --task csn --epochs 100 --batch 256 --fraction 0.01

Printed are the positives of every class by database and part, the classes that no macro figure holds because fewer than
``FEWEST`` test records state them, and the statements that no task reads; or, with ``--epochs``, a number of steps. The tasks
themselves are in :mod:`train.data.tasks`.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from train.data.pack import Cached, check_pack
from train.data.tasks import FEWEST, PARTS, TASKS, Task, measurable, unread

__all__ = ["print_tasks"]


def print_tasks(records: Sequence[Cached], console: Console, tasks: Sequence[Task] = ()) -> None:
    """Print what every task has to learn from and to be measured on."""
    for task in tasks or TASKS.values():
        by_part = {part: task.records(records, part) for part in PARTS}
        true = {part: task.targets(rows) for part, rows in by_part.items()}
        sources = Counter((record.database, part) for part, rows in by_part.items() for record in rows)
        said = ", ".join(f"{database} {part} {count}" for (database, part), count in sorted(sources.items())) or "no records"
        console.print(f"\n{task.name}: {len(task.classes)} classes, {task.kind}; {task.counts}", highlight=False)
        console.print(f"records: {said}", highlight=False)
        if not sources:
            continue
        table = Table(box=None, padding=(0, 1, 0, 0))
        table.add_column("class", no_wrap=True)
        for part in PARTS:
            table.add_column(part, justify="right")
        table.add_column("by database: train / val / test")
        positives = {part: rows.sum(axis=0).astype(int) for part, rows in true.items()}
        for c, name in enumerate(task.classes):
            counts = [str(positives[part][c]) for part in PARTS]
            if any(count != "0" for count in counts):
                table.add_row(name, *counts, _by_database(by_part, true, c))
        console.print(table)
        few = [name for name, enough in zip(task.classes, measurable(task, records), strict=True) if not enough]
        if few:
            console.print(f"fewer than {FEWEST} test records, in no macro figure: {', '.join(few)}", highlight=False)
    console.print()
    for database, lost in sorted(unread(records).items()):
        listed = ", ".join(f"{code} ({count})" for code, count in lost.most_common())
        console.print(f"{database}: statements that are no class of any task: {listed}", highlight=False)


def _by_database(by_part: dict[str, list[Cached]], true: dict[str, NDArray[np.float32]], c: int) -> str:
    counts = Counter(
        (record.database, part)
        for part, rows in by_part.items()
        for record, row in zip(rows, true[part], strict=True)
        if row[c] > 0
    )
    databases = sorted({database for database, _ in counts})
    return ", ".join(f"{one} {' / '.join(str(counts[one, part]) for part in PARTS)}" for one in databases)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="what train.prepare wrote")
    parser.add_argument("--task", choices=sorted(TASKS), action="append", help="only this one; may be given again")
    parser.add_argument(
        "--epochs", type=int, default=0, help="print how many steps these are; of all train records without --task"
    )
    parser.add_argument("--batch", type=int, default=32, help="records per step, for --epochs")
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the labelled records, for --epochs")
    arguments = parser.parse_args()
    try:
        check_pack(arguments.cache)
        records = msgspec.json.decode((arguments.cache / "records.json").read_bytes(), type=list[Cached])
        tasks = [TASKS[name] for name in arguments.task or ()]
        if not arguments.epochs:
            print_tasks(records, Console(), tasks)
            return
        train = tasks[0].records(records, "train") if tasks else [record for record in records if record.split == "train"]
        print(arguments.epochs * max(math.ceil(arguments.fraction * len(train) / arguments.batch), 1))
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
