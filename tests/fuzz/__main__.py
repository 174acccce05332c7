"""Put damaged inputs through everything that takes something from outside: ``python -m tests.fuzz --inputs 1000000 --seed 1``.

Each target runs in a process of its own, with bounds of memory and of processor time for each input; an input that ends the
process, or never ends, is a finding too. Prints inputs, time and findings of each target; the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_HEAD = 16
_MOST = 16_384
_LIMIT_S = 2.0
_SILENT_S = 60.0
_ROOM_BYTES = 2 << 30


def main() -> int:
    """Run the driver, or one target of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for inputs that did harm")
    parser.add_argument("--replay", type=Path, help="put the input in this file through --target, and show what happens")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        return _child(arguments.target[0], arguments)
    from tests.fuzz.targets import TARGETS

    chosen = arguments.target or list(TARGETS)
    if unknown := [name for name in chosen if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    if arguments.replay is not None:
        with tempfile.TemporaryDirectory() as folder:
            TARGETS[chosen[0]].prepare(Path(folder))(arguments.replay.read_bytes())
        return 0
    shares = sum(TARGETS[name].share for name in chosen)
    counts = {name: max(1, round(arguments.inputs * TARGETS[name].share / shares)) for name in chosen}
    print(f"{'target':<22} {'inputs':>9} {'s':>8} {'per s':>8} {'MiB':>6}  findings", flush=True)
    began, found, done = time.monotonic(), 0, 0
    for name, count in counts.items():
        inputs, seconds, peak, findings = _supervise(name, count, arguments)
        print(f"{name:<22} {inputs:>9} {seconds:>8.1f} {inputs / seconds:>8.0f} {peak:>6}  {len(findings)}", flush=True)
        for finding in findings:
            print(f"    {finding}", flush=True)
        found += len(findings)
        done += inputs
    print(f"{'all':<22} {done:>9} {time.monotonic() - began:>8.1f} {'':>8} {'':>6}  {found}")
    return 1 if found else 0


def _supervise(name: str, count: int, arguments: argparse.Namespace) -> tuple[int, float, int, list[str]]:
    """Run a target in a process of its own, and again after an input that ended it, until all inputs are through."""
    began, done, peak, findings, attempt = time.monotonic(), 0, 0, list[str](), 0
    while done < count and attempt < 20:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            progress = Path(folder) / "progress"
            progress.write_bytes(bytes(_HEAD + _MOST))
            own = (
                "--child",
                folder,
                "--target",
                name,
                "--inputs",
                str(count - done),
                "--seed",
                str(arguments.seed + 1000 * attempt),
            )
            options = ("--engine", arguments.engine, "--findings", str(arguments.findings))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz", *own, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            hung = _wait(process, progress)
            assert process.stderr is not None
            said = process.stderr.read().decode("utf-8", "replace")[-2000:]
            through = int.from_bytes(progress.read_bytes()[:8], "little")
            last = progress.read_bytes()
            length = int.from_bytes(last[8:_HEAD], "little")
            for file in sorted(Path(folder).glob("finding-*.json")):
                findings.append(json.loads(file.read_text())["what"])
            peak = max([peak, *(int(file.read_text()) for file in Path(folder).glob("peak"))])
        done += through
        attempt += 1
        if hung or process.returncode != 0:
            path = arguments.findings / f"{name}-ended-{attempt}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(last[_HEAD : _HEAD + length])
            why = f"no end within {_SILENT_S:g} s" if hung else f"the process ended with {process.returncode}: {said[-300:]}"
            findings.append(f"{why} ({path})")
            if not through:
                break
            done += 1
    return done, time.monotonic() - began, peak, findings


def _wait(process: subprocess.Popen[bytes], progress: Path) -> bool:
    """Wait for the end of a process; end it if it takes no further input for long, and return whether that was so."""
    last, since = b"", time.monotonic()
    while True:
        try:
            process.wait(1.0)
            return False
        except subprocess.TimeoutExpired:
            now = progress.read_bytes()[:8]
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > _SILENT_S:
                process.kill()
                process.wait()
                return True


def _child(name: str, arguments: argparse.Namespace) -> int:
    folder: Path = arguments.child
    if arguments.engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["ecgnat_stream", "ecgnat_devices"]):
            from tests.fuzz.targets import TARGETS
    else:
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.run import Finding, run

    def keep(finding: Finding) -> None:
        arguments.findings.mkdir(parents=True, exist_ok=True)
        (arguments.findings / finding.name).write_bytes(finding.data)
        (arguments.findings / f"{finding.name}.txt").write_text(finding.where, errors="replace")
        what = f"{finding.what} ({arguments.findings / finding.name})"
        (folder / f"finding-{finding.name}.json").write_text(json.dumps({"what": what}))

    with (folder / "progress").open("r+b") as file, mmap.mmap(file.fileno(), _HEAD + _MOST) as view:

        def watch(count: int, data: bytes) -> None:
            view[:_HEAD] = count.to_bytes(8, "little") + len(data).to_bytes(8, "little")
            view[_HEAD : _HEAD + len(data)] = data
            if count % 1000 == 0:
                (folder / "peak").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))

        scratch = folder / "scratch"
        scratch.mkdir()
        taker = run(
            TARGETS[name],
            scratch,
            arguments.inputs,
            arguments.seed,
            limit_s=_LIMIT_S,
            keep=keep,
            watch=watch,
            prepared=_bound_memory,
            engine=arguments.engine,
        )
        watch(taker.inputs, b"")
    return 0


def _bound_memory() -> None:
    """Allow only so much more memory than the prepared target has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        most = pages * resource.getpagesize() + _ROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    raise SystemExit(main())
