"""``python -m tests.chaos``: the harness by hand, for as long as it is told."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.check import check
from tests.chaos.conduct import conduct
from tests.chaos.plan import make_plan
from tests.chaos.table import summary, table


def main() -> int:
    """Run a plan; print the table, write the figures; 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--beds", type=int, default=8)
    parser.add_argument("--broker-kills", type=int, default=5)
    parser.add_argument("--kills", type=int, default=1, help="kill -9 of the monitor")
    parser.add_argument("--terms", type=int, default=1, help="SIGTERM to the monitor, then it is started again")
    parser.add_argument("--stands", type=int, default=0, help="how often an adapter holds the event loop")
    parser.add_argument("--only", default="", help="only faults of these kinds, with commas between")
    parser.add_argument("--json", type=Path, default=Path("chaos.json"))
    parser.add_argument("--folder", type=Path, help="keep everything that is written here")
    options = parser.parse_args()
    try:
        plan = make_plan(
            options.seed,
            options.minutes * 60,
            beds=options.beds,
            broker_kills=options.broker_kills,
            kills=options.kills,
            terms=options.terms,
            stands=options.stands,
            only=tuple(filter(None, options.only.split(","))),
        )
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        kept = options.folder or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        log = asyncio.run(conduct(plan, kept, lambda line: print(line, file=sys.stderr, flush=True)))
        found = check(log)
        options.json.write_text(json.dumps(summary(log, found), indent=1), encoding="utf-8")
        print(table(log, found))
        for item in found.items[:60]:
            print(f"{item.what:10}{item.t:8.1f}  {item.bed:6} {item.sink:10} {item.text}")
    return 1 if found.items else 0


if __name__ == "__main__":
    sys.exit(main())
