"""The name of a monitor that nobody has named."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest

from ecgnat_stream import Monitor
from ecgnat_stream.config import Config, _check_name
from ecgnat_stream.workername import own_name

SAYS = """
import sys
from ecgnat_stream import workername
workername._PLACE = sys.argv[1]
print(workername.own_name(), flush=True)
sys.stdin.read()
"""


def started(place: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", SAYS, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names have the number of the process there")
def test_processes_of_one_machine_have_names_of_their_own_and_the_next_one_has_that_of_the_one_before() -> None:
    place = f"test/{uuid4().hex}"
    first, second = started(place), started(place)
    names = [first[1], second[1]]
    try:
        assert names == [names[0], f"{names[0]}-2"]
        first[0].kill()
        first[0].communicate()
        again = started(place)
        again[0].communicate()
        assert again[1] == names[0]
    finally:
        for process, _ in (first, second):
            process.communicate()


def test_a_monitor_has_the_name_of_its_process_unless_it_is_given_one() -> None:
    assert own_name() == own_name()
    _check_name("worker", own_name())
    assert Monitor(Config()).config.worker == own_name()
    assert Monitor(Config(worker="w1")).config.worker == "w1"


@pytest.mark.parametrize(
    ("host", "name"), [("icu-pc.hospital.example", "icu-pc"), ("b\u00e4r_1", "b-r_1"), ("", "monitor"), ("...", "monitor")]
)
def test_any_host_name_becomes_a_level_of_a_topic(monkeypatch: pytest.MonkeyPatch, host: str, name: str) -> None:
    from ecgnat_stream import workername

    monkeypatch.setattr(workername.socket, "gethostname", lambda: host)
    monkeypatch.setattr(workername, "_PLACE", f"test/{uuid4().hex}")
    workername._of_process.cache_clear()
    try:
        assert workername.own_name() in (name, f"{name}-{workername.os.getpid()}")
        _check_name("worker", workername.own_name())
    finally:
        workername._of_process.cache_clear()
