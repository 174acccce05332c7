"""The guard: a process whose loop stands still, or that does not end when told to, is ended with a code to start it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from ecgnat_stream.cli import guard
from ecgnat_stream.cli.guard import DIED

STARTS = """
import asyncio, signal, sys, time
from ecgnat_stream.cli.guard import guarded

async def main(guard):
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    looked = [time.monotonic_ns()]
    async def look():
        while True:
            looked[0] = time.monotonic_ns()
            await asyncio.sleep(0.1)
    task = asyncio.create_task(look())
    stop = lambda number: loop.call_soon_threadsafe(ended.set)
    guard.watch(stop, lambda: looked[0], loop_s=2.0)
    await asyncio.sleep(0.5)
    print("runs", flush=True)
    {then}
    await ended.wait()
    guard.leave()
    task.cancel()
with guarded() as made:
    asyncio.run(main(made))
{after}
print("ended", flush=True)
"""


def run(then: str = "", after: str = "", numbers: Sequence[int] = (), **environment: str) -> tuple[int, str, str, float]:
    code = STARTS.format(then=then, after=after)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "runs\n"
        begun = time.monotonic()
        for number in numbers:
            process.send_signal(number)
        out, error = process.communicate(timeout=60)
        return process.returncode, out, error, time.monotonic() - begun


def test_a_loop_that_stands_still_ends_the_process_and_says_where() -> None:
    code, _, error, _ = run(then="time.sleep(60)")
    assert code == DIED
    assert "the event loop stands still" in error
    assert "Current thread" in error or "Thread" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_the_usual_way(number: signal.Signals) -> None:
    code, out, error, _ = run(numbers=[number])
    assert (code, out, error) == (0, "ended\n", "")


@pytest.mark.parametrize(
    ("then", "after"),
    [
        ("ended.wait = asyncio.Event().wait", ""),  # nobody heeds it
        ("loop.run_in_executor(None, time.sleep, 60)", ""),  # the loop waits for its threads
        ("", "import threading; threading.Thread(target=time.sleep, args=(60,)).start()"),  # a thread that nobody joins
    ],
)
def test_a_process_that_does_not_end_when_told_to_is_ended(then: str, after: str) -> None:
    code, _, error, took_s = run(then, after, numbers=[signal.SIGTERM])
    assert code == DIED
    assert "did not end within 8.5 s" in error
    assert took_s < 30


def test_an_error_pipe_that_nobody_reads_does_not_keep_the_process() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    code = STARTS.format(then="time.sleep(60)", after="")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writer) as process:
        assert process.wait(30) == DIED
    os.close(reader)
    os.close(writer)


def test_a_terminal_that_is_gone_does_not_keep_the_process() -> None:
    far, near = os.openpty()
    code = STARTS.format(then="time.sleep(60)", after="")
    pipes = {"stdin": near, "stdout": subprocess.PIPE, "stderr": near}
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        os.close(near)
        assert process.stdout.readline() == b"runs\n"
        os.close(far)
        assert process.wait(30) == DIED


def test_a_process_that_was_stopped_as_a_whole_is_not_blamed() -> None:
    shell = "kill -STOP $PPID; sleep 5; kill -CONT $PPID; sleep 1; kill -TERM $PPID"
    code, out, error, _ = run(then=f"import subprocess; subprocess.Popen(['sh', '-c', '{shell}'])")
    assert (code, out, error) == (0, "ended\n", "")


def test_a_program_that_goes_on_behind_the_monitoring_is_left_alone() -> None:
    code, out, error, took_s = run(after="time.sleep(11)", numbers=[signal.SIGTERM])
    assert (code, out, error) == (0, "ended\n", "")
    assert took_s > 10


def test_systemd_is_told_that_it_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "notify"))
        service.settimeout(5)
        run(then="await asyncio.sleep(1.2); ended.set()", NOTIFY_SOCKET=str(tmp_path / "notify"))
        said = [service.recv(100) for _ in range(3)]
    assert said[:2] == [b"READY=1", b"WATCHDOG=1"]


def test_a_systemd_that_is_behind_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "notify"))
        service.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(5000):  # more than it takes without being read
            guard._notify("WATCHDOG=1")
        with suppress(BlockingIOError):
            while True:
                assert service.recv(100) == b"WATCHDOG=1"
        guard._notify("WATCHDOG=1")
        assert service.recv(100) == b"WATCHDOG=1"


def test_a_guard_that_fails_ends_the_process() -> None:
    code, _, error, _ = run(then="guard._watched_ns = lambda: 1 // 0")
    assert code == DIED
    assert "its guard has failed: ZeroDivisionError" in error


def test_a_process_that_has_no_file_descriptor_left_is_still_guarded(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(tmp_path / "notify"))
        limits = (
            "import resource; limit = resource.setrlimit; limit(7, (3, 1000)); await asyncio.sleep(1.5); limit(7, (1000, 1000))"
        )
        then = limits.replace("7", "resource.RLIMIT_NOFILE")
        code, out, error, _ = run(then=then, numbers=[signal.SIGTERM], NOTIFY_SOCKET=str(tmp_path / "notify"))
    assert (code, out, error) == (0, "ended\n", "")
