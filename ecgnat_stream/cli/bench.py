"""``ecgnat bench``: what this machine can carry."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgnat_stream.cli.options import a_path, a_whole_number, add_model, positive
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.suggest import unknown

if TYPE_CHECKING:
    from ecgnat_stream.bench import BenchOptions, SoakOptions

__all__ = ["add"]

_PARTS = ("beds", "stages", "start", "ratios", "speeds")
_SINKS = ("jsonl", "zmq", "history", "record")
"""Those of the room, which is not loaded for ``--help``; a test holds them together."""

_MOST_BEDS = 4000
_SOAK_BEDS, _SOAK_S = 500, 3600.0
_TRIAL_S = 20.0


def add(commands: Any) -> None:
    """Add ``ecgnat bench`` to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure what this machine can carry: beds, latency, where the time goes",
        description="Measure what this machine can carry, with simulated beds: how many in real time, how late their labels are, "
        "where time and memory go, how fast the start and recordings are, and ratios against other ways and libraries.",
        epilog="""examples:
  ecgnat bench                                    everything, about 25 minutes on a quiet machine
  ecgnat bench --quick                            whether it works, in a minute
  ecgnat bench --only beds --leads 2 --json here.json
  ecgnat bench --only beds --beds 200,400 --seconds 60
  ecgnat bench --soak --beds 500 --seconds 3600 --json soak.jsonl    the same command goes on after an interruption""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=positive, metavar="N", help="length of a trial (default 20), of a soak (3600), in s")
    parser.add_argument("--json", type=a_path, metavar="FILE", help="write everything that was found; of a soak, a line per row")
    parser.add_argument("--quick", action="store_true", help="two beds, short trials, no search: whether it works")
    parser.add_argument("--only", type=_several(_PARTS, "part"), metavar="PART,...", help=f"of {', '.join(_PARTS)}")
    parser.add_argument("--beds", type=_numbers(1, _MOST_BEDS), metavar="N,...", help="try these numbers of beds, do not search")
    parser.add_argument("--leads", type=_numbers(1, 12), metavar="N,...", help="leads of a bed (default 2,12)")
    parser.add_argument(
        "--sinks", type=_several(_SINKS, "sink"), metavar="SINK,...", help=f"who takes the events: {', '.join(_SINKS)}"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs")
    parser.add_argument(
        "--mode", choices=("auto", "window", "stream"), default="auto", help="how the network reads: [model] mode"
    )
    add_model(parser)
    parser.add_argument("--soak", action="store_true", help="one long run: are memory and latency flat?")
    parser.add_argument("--speed", choices=("1", "max"), help="of a soak: in real time (the default), or as fast as possible")
    parser.set_defaults(command=_bench)


def _several(known: tuple[str, ...], kind: str) -> Any:
    def names(text: str) -> tuple[str, ...]:
        given = tuple(name.strip() for name in text.split(","))
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(unknown(kind, name, known))
        return given

    return names


def _numbers(low: int, high: int) -> Any:
    each = a_whole_number(low, high)

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(each(part.strip()) for part in text.split(","))

    return numbers


def _bench(arguments: argparse.Namespace) -> int:
    model = {key: value for key in ("device", "mode") if (value := getattr(arguments, key)) not in (None, "auto")}
    if arguments.model is not None:
        model["name"] = arguments.model
    if arguments.soak:
        return _soak(arguments, model)
    if arguments.speed:
        raise ConfigError("--speed is of a soak: give --soak too")
    from ecgnat_stream.bench import PARTS, BenchOptions

    options = BenchOptions(
        parts=arguments.only or PARTS,
        seconds=arguments.seconds or (3.0 if arguments.quick else _TRIAL_S),
        quick=arguments.quick,
        beds=arguments.beds or (),
        leads=arguments.leads or ((2,) if arguments.quick else (2, 12)),
        model=model,
        sinks=arguments.sinks or (),
        command=" ".join(["ecgnat", *sys.argv[1:]]),
    )
    return _measure(options, arguments.json)


def _measure(options: BenchOptions, path: Path | None) -> int:
    import msgspec

    from ecgnat_stream.bench import bench
    from ecgnat_stream.bench.show import drawn, printed

    if path is not None:
        _check_writable(path)
    report = bench(options, lambda text: print(f"bench: {text}", file=sys.stderr))
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    printed(drawn(report))
    failed = [what for what in report.missing if what.partition(":")[0] in options.parts]
    return 1 if failed else 0


def _soak(arguments: argparse.Namespace, model: dict[str, object]) -> int:
    import asyncio

    from ecgnat_stream.bench import SoakOptions, soak
    from ecgnat_stream.bench.show import printed, soak_drawn
    from ecgnat_stream.bench.soak import verdicts

    for option in ("only", "quick", "sinks"):
        if getattr(arguments, option):
            raise ConfigError(f"--{option} is not for --soak")
    if arguments.json is None:
        raise ConfigError("--soak needs --json FILE: a line per row goes there, and a run that was broken off goes on from it")
    for option in ("beds", "leads"):
        if len(getattr(arguments, option) or (0,)) > 1:
            raise ConfigError(f"--{option}: one number for --soak")
    options: SoakOptions = SoakOptions(
        beds=(arguments.beds or (_SOAK_BEDS,))[0],
        leads=(arguments.leads or (2,))[0],
        seconds=arguments.seconds or _SOAK_S,
        live=arguments.speed != "max",
        model=model,
    )
    rows = asyncio.run(soak(options, arguments.json, lambda row: print(f"bench: {_line(row)}", file=sys.stderr)))
    found = verdicts(rows)
    printed(soak_drawn(rows, found))
    return 0 if all(verdict.flat for verdict in found) and not any(row.skipped for row in rows) else 1


def _line(row: Any) -> str:
    p99 = "no label" if row.p99_ms is None else f"p99 {row.p99_ms:.0f} ms"
    return f"{row.at_s:.0f} s, {row.rss_mb:.0f} MB, {p99}, {row.cpu_ms:.2f} ms/bed/s, {row.skipped} skipped"


def _check_writable(path: Path) -> None:
    """Refuse a file that cannot be written before anything is measured for it."""
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written ({error.strerror})") from error
