"""``ecgnat replay``: recordings as if they were live."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgnat_stream.cli.check import check_devices
from ecgnat_stream.cli.live import has_terminal, monitor
from ecgnat_stream.cli.options import (
    a_record,
    a_whole_number,
    add_output,
    add_reading,
    add_sinks,
    check_part,
    lead_map,
    positive,
    sink_tables,
    stated_differently,
)
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.suggest import unknown

if TYPE_CHECKING:
    from ecgnat_stream.config import Config

__all__ = ["add"]

_SPEEDS = (0.001, 1_000_000.0)
"""Those of the adapter (``ecgnat_devices.pace.Speed``), which is not loaded for ``--help``."""


def add(commands: Any) -> None:
    """Add ``ecgnat replay`` to the parser."""
    replay = commands.add_parser(
        "replay",
        help="monitor recordings as if they were live",
        description="Replay recordings (WFDB header or name, EDF, CSV, NPY and others), one bed each, through the whole monitor.",
        epilog="""examples:
  ecgnat replay vfdb/418 vfdb/419 --speed max --headless | jq 'select(.type == "alarm")'
  ecgnat replay samples.npy --fs 250 --units mV --leads II,V1          two rows, or columns, without names
  ecgnat replay adc.csv --fs 500 --units uV --scale 2.44 --leads II    steps of a converter, 2.44 uV each""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument(
        "records", nargs="+", type=a_record, metavar="RECORD", help="path of a record, with or without its ending"
    )
    replay.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="1 is real time, 20 is faster, max as fast as possible"
    )
    add_reading(replay)
    replay.add_argument("--loop", action="store_true", help="begin again at the end")
    replay.add_argument(
        "--block", type=a_whole_number(1, 1_000_000), metavar="N", help="samples per block, as the simulated device delivers them"
    )
    add_output(replay)
    add_sinks(replay)
    replay.set_defaults(command=_replay, stay=True, attended=True)


def _speed(text: str) -> float | str:
    if text.strip().lower() == "max":
        return "max"
    low, high = _SPEEDS
    try:
        speed = positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor max") from None
    if not low <= speed <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not from {low:g} to {high:g}: give max for as fast as possible")
    return speed


def _replay(arguments: argparse.Namespace) -> int:
    from ecgnat_stream.config import parse_config

    check_part(arguments)
    leads, several = lead_map(arguments.lead), len(arguments.records) > 1
    if several and (note := stated_differently(arguments)):
        print(f"ecgnat: {note}", file=sys.stderr)
    given = {
        "start_s": arguments.start,
        "stop_s": arguments.stop,
        "fs": arguments.fs,
        "units": arguments.units,
        "scale": arguments.scale,
        "leads": arguments.leads and list(arguments.leads),
        "block": arguments.block,
    }
    options = {"speed": arguments.speed, "loop": arguments.loop, "strict": not several} | {
        k: v for k, v in given.items() if v is not None
    }
    beds: list[dict[str, Any]] = []
    for record in arguments.records:
        name = _bed_id(Path(record).name.removesuffix(".hea"), {bed["id"] for bed in beds})
        beds.append({"id": name, "device": "replay", "options": {"path": record, **options}, "lead_map": leads})
    if several and leads:
        for bed, own in zip(beds, _share(leads, beds), strict=True):
            bed["lead_map"] = own
    config = parse_config({"site": "replay", "unit": "records", "bed": beds, **sink_tables(arguments)}, "replay")
    if not arguments.headless and not has_terminal():
        check_devices(config)
        _open(config)  # a wrong record is told first: it stays wrong when there is a terminal
    return monitor(config, arguments)


def _share(leads: dict[str, str], beds: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what ``--lead`` says of each of several records: of the signals that it has.

    Raises
    ------
    ConfigError
        For a signal that no record has.
    DeviceError
        For a record that cannot be opened.
    """
    from ecgnat_stream.clock import SystemClock
    from ecgnat_stream.device import open_device

    devices: list[Any] = [open_device(bed["device"], bed["options"], SystemClock()) for bed in beds]
    signals = [(*info.leads, *info.left_out) for info, _ in (device.open() for device in devices)]
    there = list(dict.fromkeys(name for names in signals for name in names))
    for name, lead in leads.items():
        if name not in there:
            raise ConfigError(f"--lead {name}={lead}: {unknown('signal', name, there)}; no record has it")
    return [{name: lead for name, lead in leads.items() if name in names} for names in signals]


def _open(config: Config) -> None:
    """Open every record, as it will be opened for replay.

    Raises
    ------
    DeviceError
        For the first one that cannot be replayed.
    ConfigError
        For a signal of ``--lead`` that it has not.
    """
    from ecgnat_stream.clock import SystemClock
    from ecgnat_stream.device import open_device
    from ecgnat_stream.signal import check_lead_map

    for bed in config.bed:
        device: Any = open_device(bed.device, bed.options, SystemClock())
        info, _ = device.open()
        check_lead_map(info, bed.lead_map)


def _bed_id(name: str, taken: set[str]) -> str:
    """Return a bed id for a record: its name, in characters that a topic can hold, numbered if it is taken."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).lstrip("._-") or "record"
    return next(candidate for i in range(1, len(taken) + 2) if (candidate := clean if i == 1 else f"{clean}-{i}") not in taken)
