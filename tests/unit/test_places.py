"""Paths and addresses as people write them, and files that hold settings: each read in one way, wherever it is written."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.places import Address, address, broker_address, endpoint, file_bytes, path_of, regular_file, text_of
from ecgnat_stream.sink.history import HistoryConfig
from ecgnat_stream.sink.mqtt import MqttConfig
from ecgnat_stream.sink.mqtt.config import broker_access
from ecgnat_stream.sink.record import RecordConfig
from ecgnat_stream.sink.zmq import ZmqConfig


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ECG", "/srv/ecg")
    monkeypatch.delenv("NOTHING", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~", "{home}"),
        ("~/a", "{home}/a"),
        ("~root/a", os.path.expanduser("~root/a")),
        ("$HOME/a", "{home}/a"),
        ("${ECG}/a b", "/srv/ecg/a b"),
        ("x/$ECG", "x//srv/ecg"),
        ("./~/a", "~/a"),
        ("a~b/c~", "a~b/c~"),
        ("cost$5.csv", "cost$5.csv"),
        ("a$NOTHING.csv", "a$NOTHING.csv"),
        ("/plain/é", "/plain/é"),
    ],
)
def test_what_a_path_means(written: str, meant: str, home: Path) -> None:
    assert path_of(written) == Path(meant.format(home=home))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("~no-such-account/a", r"no account no-such-account: .*\./~no-such-account"),
        ("$NOTHING/a", "no NOTHING"),
        ("${NOTHING}/a", "no NOTHING"),
        ("a/$NOTHING", "no NOTHING"),
        ("a\0b", "zero byte"),
        ("a\ud800", r"cannot hold '\\ud800' here"),
        ("x" * 5000, "5000 characters"),
    ],
)
def test_a_path_that_means_nothing_is_refused(written: str, said: str, home: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        path_of(written)


@pytest.mark.parametrize("name", ["~no-such-account", "$NOTHING"])
def test_a_name_that_is_there_is_taken_as_it_is_written(name: str, home: Path) -> None:
    Path(name).touch()
    assert path_of(name) == Path(name)


@pytest.mark.parametrize("value", ["", None])
def test_a_home_that_is_not_known_is_never_a_folder_of_that_name(
    value: str | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such uid")))
    if value is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", value)
    Path("~").mkdir()  # as an earlier version made it
    with pytest.raises(ConfigError, match="home folder"):
        path_of("~/a")


def test_every_path_of_every_sink_knows_the_home_folder(home: Path) -> None:
    assert RecordConfig(directory="~/r").directory == f"{home}/r"
    assert HistoryConfig(path="~/h.db").path == f"{home}/h.db"
    mqtt = MqttConfig(url="mqtts://b", ca_file="~/ca", cert_file="~/c", key_file="~/k", credentials_file="$HOME/p")
    assert [mqtt.ca_file, mqtt.cert_file, mqtt.key_file, mqtt.credentials_file] == [
        f"{home}/{name}" for name in ("ca", "c", "k", "p")
    ]
    zmq = ZmqConfig(bind="ipc://~/z", secret_key_file="~/s", clients_dir="~/clients")
    assert [zmq.bind, zmq.secret_key_file, zmq.clients_dir] == [f"ipc://{home}/z", f"{home}/s", f"{home}/clients"]
    assert MqttConfig().ca_file == "", "nothing stays nothing"
    with pytest.raises(ConfigError, match=r"record\.directory: \$NOTHING/r: the environment has no NOTHING"):
        RecordConfig(directory="$NOTHING/r")


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("mqtt://h", None, "h", 1883),
        ("MQTTS://h/", None, "h", 8883),
        ("  mqtt://h:1884\n", None, "h", 1884),
        ("mqtt://ward%40icu@h", "ward@icu", "h", 1883),
        ("mqtt://a@b@h:7", "a@b", "h", 7),
        ("mqtt://a%3Ab%2f%25@h", "a:b/%", "h", 1883),
        ("mqtt://m%C3%BCller@h", "müller", "h", 1883),
        ("mqtt://@h", None, "h", 1883),
        ("mqtt://[::1]", None, "::1", 1883),
        ("mqtts://u@[fe80::1%25eth0]:1", "u", "fe80::1%eth0", 1),
        ("mqtt://h:", None, "h", 1883),
        ("mqtt://h:0", None, "h", 0),
    ],
)
def test_where_a_broker_is(text: str, user: str | None, host: str, port: int) -> None:
    found = broker_address(text)
    assert (found.user, found.host, found.port) == (user, host, port)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("localhost", "write mqtt://host:port .*here mqtt://localhost"),
        ("localhost:1883", "here mqtt://localhost:1883"),
        ("http://h", "scheme 'http'"),
        ("mqtt://", "host '' is none"),
        ("mqtt://u@:1883", "host '' is none"),
        ("mqtt://h:12x", "'12x' is out of range"),
        ("mqtt://h:65536", "out of range"),
        ("mqtt://h:-1", "out of range"),
        ("mqtt://h:٣", "out of range"),
        ("mqtt://::1", "in brackets"),
        ("mqtt://h:1:2", "in brackets"),
        ("mqtt://[::1", "in brackets"),
        ("mqtt://[h]", "host 'h'"),
        ("mqtt://[127.0.0.1]", "no IPv6 address"),
        ("mqtt://h/topic", "path '/topic'"),
        ("mqtt://h?a", "path '.a'"),
        ("mqtt://a b", "a blank"),
        ("mqtt://a\tb", "a blank"),
        ("mqtt://a..b", "host 'a..b'"),
        ("mqtt://u%00@h", "user name holds"),
        ("mqtt://u%ff@h", "not UTF-8"),
    ],
)
def test_an_address_that_is_none_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        broker_address(text)


@pytest.mark.parametrize(
    "url",
    ["mqtt://u:geheim@h", "mqtt://u:ge#heim@h", "mqtt://u:ge/heim@h", "mqtt://u:geheim@h:x", "u:geheim@h", "mqtt://u:geheim @h"],
)
def test_a_password_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        broker_address(url)
    assert "heim" not in str(caught.value)
    assert "heim" not in repr(Address("mqtt", "u", "geheim", "h", 1)) + str(Address("mqtt", "u", "geheim", "h", 1))


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1),
    st.text(st.sampled_from("ab@:/?#%[]"), min_size=1),
)
def test_a_name_and_a_password_of_any_characters_come_out_as_they_were(user: str, password: str) -> None:
    found = address(f"mqtt://{quote(user, safe='')}:{quote(password, safe='')}@h:1", {"mqtt": 1883})
    assert found == ("mqtt", user, password, "h", 1)


@settings(max_examples=500, deadline=None)
@given(st.text() | st.text(st.sampled_from("mqtsipc:/@[]%#?*.~$01 \0é\udce9"), max_size=40))
def test_any_text_is_an_address_or_a_mistake_that_is_named(text: str) -> None:
    for read in (broker_address, endpoint, path_of):
        try:
            read(text)
        except ConfigError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tcp://127.0.0.1:5556/", "tcp://127.0.0.1:5556"),
        (" tcp://*:* ", "tcp://*:*"),
        ("tcp://[::1]:0", "tcp://[::1]:*"),
        ("TCP://localhost:1", "tcp://localhost:1"),
        ("ipc:///run/e.sock", "ipc:///run/e.sock"),
        ("ipc://@abstract", "ipc://@abstract"),
        ("inproc://x", "inproc://x"),
    ],
)
def test_an_endpoint(text: str, meant: str) -> None:
    assert endpoint(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp://127.0.0.1", "has no port: write tcp://127.0.0.1:5556"),
        ("tcp://:5556", "host ''"),
        ("tcp://u@h:1", "no user names"),
        ("udp://h:1", "scheme 'udp'"),
        ("127.0.0.1:5556", "here tcp://127.0.0.1:5556"),
        ("ipc://", "names no file"),
        ("ipc:///" + "x" * 107, "at most 107"),
    ],
)
def test_an_endpoint_that_is_none(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        endpoint(text)


def test_a_pipe_is_read_while_somebody_writes_and_not_waited_for_when_nobody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecgnat_stream.places._PIPE_S", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="nobody has written"):
        file_bytes(pipe, 100)
    monkeypatch.setattr("ecgnat_stream.places._PIPE_S", 30)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"site = 'a'",))
    writer.start()
    assert file_bytes(pipe, 100) == b"site = 'a'"
    writer.join()
    with pytest.raises(ConfigError, match="it is a pipe"):
        regular_file(pipe)


@pytest.mark.parametrize(
    ("path", "said"),
    [("/dev/zero", "a device"), ("/dev/tty", "a device|No such"), (".", "a folder"), ("/nowhere", "No such file")],
)
def test_what_is_no_file_is_not_read(path: str, said: str) -> None:
    for read in (regular_file, lambda path: file_bytes(path, 10)):
        with pytest.raises(ConfigError, match=said):
            read(path)


def test_text_is_utf_8_with_or_without_a_mark() -> None:
    assert text_of("\ufeffé".encode()) == text_of("é".encode()) == "é"
    assert text_of(b"") == ""
    for wide in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(ConfigError, match=r"UTF-16.*save it as UTF-8"):
            text_of("site".encode(wide))
    with pytest.raises(ConfigError, match="byte 0xe9 in line 2"):
        text_of("a\nMüller é".replace("ü", "").encode("latin1"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("müller:x".encode("latin1"), "not UTF-8: byte 0xfc in line 1"),
        ("a:b".encode("utf-16"), "UTF-16"),
        (b"", "is not user:password"),
        (b"x" * 70_000, "larger"),
    ],
)
def test_a_file_of_credentials_that_cannot_be_used_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"mqtt\.credentials_file: .*{said}"):
        broker_access(MqttConfig(credentials_file=str(path)))


def test_credentials_with_a_mark_and_signs_of_an_address_come_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("\ufeffa%40b:p@ss:w%20rd#\r\nmore\n", encoding="utf-8")
    access = broker_access(MqttConfig(credentials_file=str(path)))
    assert (access.username, access.password) == ("a%40b", "p@ss:w%20rd#")
    access = broker_access(MqttConfig(url="mqtt://ward%40icu@h", credentials_file=str(path)))
    assert access.username == "ward@icu"


def test_a_password_of_the_environment_that_is_no_text_is_refused_unshown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"ECGNAT_MQTT_PASSWORD", b"geheim\xe9")
    with pytest.raises(ConfigError, match="ECGNAT_MQTT_PASSWORD in the environment is not UTF-8") as caught:
        broker_access(MqttConfig())
    assert "geheim" not in str(caught.value)
