"""Condition every record of a data root once into a cache for training: :mod:`train.data.pack`.

    python -m train.prepare --data DATA --cache runs/cache
    python -m train.prepare --data DATA --cache runs/cache --databases mitdb,ptbxl

Prints what every database gave, which are left out and why, and every record that cannot be read. Running it again is always
right.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from train.data.pack import DATABASES, prepare


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_root = os.environ.get("ECGNAT_DATA")
    parser.add_argument("--data", type=Path, default=default_root, required=default_root is None, help="one folder per database")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="folder to write")
    parser.add_argument(
        "--databases", default=",".join(DATABASES), help="which folders, with commas; any folder of signals can be"
    )
    parser.add_argument("--published-splits", action="store_true", help="full downloads without splits.csv: their own splits")
    arguments = parser.parse_args()
    try:
        prepare(arguments.data, arguments.cache, tuple(arguments.databases.split(",")), arguments.published_splits)
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
