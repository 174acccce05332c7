"""What listens beyond this machine without keys is refused, or warned about."""

from __future__ import annotations

import logging

import pytest

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.exposure import is_local, refuse_exposed


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST.", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_loopback_is_local(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize(
    "host", ["*", "", "0.0.0.0", "::", "192.0.2.1", "eth0", "monitor.example", "127.0.0.1.example", "::ffff:0:0"]
)
def test_everything_else_is_not(host: str) -> None:
    assert not is_local(host)


def test_what_is_exposed_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"zmq\.bind: \* is reached.*set a key, or set insecure = true in \[zmq\]"):
        refuse_exposed("zmq.bind", "*", False, False, instead="set a key")


def test_what_is_exposed_on_purpose_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        refuse_exposed("zmq.bind", "0.0.0.0", False, True, instead="set a key")
    assert "zmq.bind: 0.0.0.0 is reached from other machines" in caplog.text


@pytest.mark.parametrize(("host", "secured"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_nothing_is_said_of_what_is_safe(host: str, secured: bool, caplog: pytest.LogCaptureFixture) -> None:
    for insecure in (False, True):
        refuse_exposed("zmq.bind", host, secured, insecure, instead="set a key")
    assert not caplog.records
