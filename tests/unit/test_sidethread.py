"""Side threads: in order, errors where they are awaited, a cancellation that waits for nothing, a process that ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from ecgnat_stream.sidethread import SideThread


async def test_work_is_done_in_order_in_one_thread_and_errors_come_where_it_is_awaited() -> None:
    side, done = SideThread("side"), list[int]()
    threads = {await side.do(threading.get_ident) for _ in range(10)}
    for k in range(100):
        side.submit(lambda k=k: done.append(k))  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        await side.do(lambda: 1 / 0)
    assert done == list(range(100))
    assert len(threads) == 1


async def test_a_cancellation_waits_for_nothing_and_what_was_begun_is_finished() -> None:
    side, go, done = SideThread("side"), threading.Event(), list[str]()

    def first() -> None:
        go.wait(30)
        done.append("first")

    waiting = asyncio.create_task(side.do(first))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done == []
    go.set()
    assert await side.do(lambda: [*done, "second"]) == ["first", "second"]


async def test_a_thread_that_has_nothing_to_do_ends_and_another_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgnat_stream.sidethread._IDLE_S", 0.0)
    side = SideThread("idle side")
    first = await side.do(threading.current_thread)
    await asyncio.to_thread(first.join, 30)
    assert not first.is_alive()
    assert await side.do(threading.current_thread) is not first


async def test_work_waits_where_the_machine_has_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = threading.Thread.start, list[str]()

    def refuse(thread: threading.Thread) -> None:
        if len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr("ecgnat_stream.sidethread._AGAIN_S", 0.0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    side = SideThread("late side")
    assert await asyncio.gather(side.do(lambda: 1), side.do(lambda: 2)) == [1, 2]
    assert refused == ["late side"] * 2


@pytest.mark.timeout(60)
def test_work_that_never_returns_does_not_keep_the_process() -> None:
    program = (
        "import asyncio, threading\n"
        "from ecgnat_stream.sidethread import SideThread\n"
        "async def main():\n"
        "    async with asyncio.timeout(0.1):\n"
        "        await SideThread('stuck').do(threading.Event().wait)\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.stderr.rstrip().endswith("TimeoutError")
