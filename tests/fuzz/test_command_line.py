"""Any command line and any configuration: an exit code of 0, 1 or 2, a message that says what is wrong, and no traceback.

Nothing is monitored, analysed, scored, measured or compiled here: where the work would begin it is left out, and what comes
before it runs as it is.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgnat_stream.cli import main, parser
from ecgnat_stream.config import Config, load_config, parse_config
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.sink.history import HistoryConfig
from ecgnat_stream.sink.mqtt import MqttConfig
from ecgnat_stream.sink.record import RecordConfig
from ecgnat_stream.sink.zmq import ZmqConfig

QUIET = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)

ODD = (
    "", " ", "-", "--", "-1", "0", "1", "4.5", "1e999", "nan", "inf", "-inf", "1" * 400, "٣", "true", "max", "2h",
    "9" * 30 + "d", "2026-13-01", ".", "..", "/", "~", "~/x", "~no-such-account/x", "$NOTHING/x", "${HOME}",
    "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "pipe", "folder", "text.toml", "latin.toml", "wide.toml",
    "odd.toml", "nothing", "a\x00b", "caf\udce9", "µ 中", "\x1b[2J", "x" * 5000, "a=b", "II=II", "V1", "II,V1",
    "II,,II", "mqtt://", "mqtt://a:b@c", "mqtts://[::1]:1", "mqtt://u%40@h:99999", "tcp://*:*", "tcp://127.0.0.1",
    "ipc://~/s", "udp://x", "a/b/c", "a/+/c", "%s%n{}", "*", "[", "uv", "mV",
)  # fmt: skip
"""Values of options and arguments as nobody should give them, and some that somebody may."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what a path may lead to by mistake."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    bed = '[[bed]]\nid = "1"\ndevice = "simulate"\n'
    (folder / "text.toml").write_text("\ufeff" + bed, encoding="utf-8")
    (folder / "latin.toml").write_bytes(b'site = "caf\xe9"\n')
    (folder / "wide.toml").write_text(bed, encoding="utf-16")
    (folder / "odd.toml").write_text(bed + '[mqtt]\nurl = "mqtt://h"\nca_file = "pipe"\n', encoding="utf-8")
    return folder


@contextmanager
def without_the_work(folder: Path) -> Iterator[None]:
    """Leave out what would monitor, analyse, score, measure, compile or talk to somebody."""

    async def nothing(*_: object, **__: object) -> int:
        return 0

    async def answered(*_: object, **__: object) -> Any:
        from datetime import UTC, datetime

        from ecgnat_stream.events import CommandResult

        return CommandResult(bed="a/b/c", time=datetime.now(UTC), accepted=True, action="pause")

    async def no_faults(*_: object) -> list[str]:
        return []

    def refused(*_: object) -> None:
        raise ConfigError("the work begins here")

    was = Path.cwd()
    os.chdir(folder)
    try:
        with (
            patch("ecgnat_stream.cli.live._run_monitor", nothing),
            patch("ecgnat_stream.cli.guard.guarded", nullcontext),
            patch("ecgnat_stream.cli.run.faults", no_faults),
            patch("ecgnat_stream.cli.doctor.examine", lambda *_: 0),
            patch("ecgnat_stream.sink.mqtt.command.send_command", answered),
            patch("ecgnat_stream.cli.analyse._run", lambda *_: None),
            patch("ecgnat_stream.cli.score._tasks", refused),
            patch("ecgnat_stream.bench.bench", refused),
            patch("ecgnat_stream.bench.soak", refused),
            patch("ecgnat_stream.compiled.prepare_kernels", refused),
            patch("ecgnat_stream.model.ahead.make_package", refused),
            patch("ecgnat_stream.model.ahead.make_onnx", refused),
            patch("ecgnat_stream.places._PIPE_S", 0.01),
            patch.dict(os.environ, {"HOME": str(folder)}),
        ):
            yield
    finally:
        os.chdir(was)


def outcome(argv: list[str]) -> tuple[int, str]:
    """Run a command line; return its exit code and what it said."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    with redirect_stderr(said), redirect_stdout(shown), pytest.raises(SystemExit) as ended:
        main(argv)
    said.flush()
    code = ended.value.code
    return code if isinstance(code, int) else 0, said.buffer.getvalue().decode("utf-8", "surrogateescape")  # type: ignore[attr-defined]


def commands() -> dict[str, argparse.ArgumentParser]:
    return next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)).choices


COMMANDS = {name: each for name, each in commands().items() if name != "completion" or find_spec("argcomplete")}


def words(action: argparse.Action) -> st.SearchStrategy[list[str]]:
    """Return the words that an option or argument may be given with."""
    choices = [str(choice) for choice in action.choices or ()]
    value = st.sampled_from(ODD) | st.sampled_from(choices) if choices else st.sampled_from(ODD)
    if not action.option_strings:
        return st.lists(value, max_size=2)
    name = st.sampled_from(action.option_strings)
    if action.nargs == 0:
        return name.map(lambda option: [option])
    apart = st.tuples(name, value).map(list)
    return apart | apart.map(lambda pair: [f"{pair[0]}={pair[1]}"] if pair[0].startswith("--") else pair)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from([*COMMANDS]))
    actions = [action for action in COMMANDS[command]._actions if action.dest != "follow"]  # it follows for ever, as it should
    chosen = draw(st.lists(st.sampled_from(actions), max_size=4)) + [action for action in actions if not action.option_strings]
    parts = [draw(words(action)) for action in chosen]
    if command in ("demo", "replay", "run") and draw(st.booleans()):
        parts.append(["--headless"])
    return [command, *(word for part in draw(st.permutations(parts)) for word in part)]


@pytest.mark.timeout(120)
@given(command_lines())
@QUIET
def test_any_command_line_ends_with_a_code_and_a_sentence(place: Path, argv: list[str]) -> None:
    with without_the_work(place):
        code, said = outcome(argv)
    assert code in (0, 1, 2), said
    assert "Traceback" not in said
    if code:
        last = said.strip().splitlines()[-1]
        assert len(last) > len("ecgnat: "), argv
    assert not [path for path in place.iterdir() if path.name.startswith(("~", "$"))], "no folder is called after a sign"


VALUES = (
    st.sampled_from(ODD)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.lists(st.integers() | st.sampled_from(ODD), max_size=3)
    | st.dictionaries(st.sampled_from(ODD), st.integers() | st.sampled_from(ODD), max_size=2)
)

STAGES = {"mqtt": MqttConfig, "zmq": ZmqConfig, "record": RecordConfig, "history": HistoryConfig}
FIELDS = [
    (table, field.encode_name)
    for table, kind in {"": Config, **STAGES, **{f.name: f.type for f in msgspec.structs.fields(Config)}}.items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    for field in msgspec.structs.fields(kind)
]
"""Every setting: its table and its name."""


@given(st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=3))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_of_any_setting_is_taken_or_refused_by_name(given_: list[tuple[tuple[str, str], Any]]) -> None:
    table: dict[str, Any] = {}
    for (section, name), value in given_:
        target = table.setdefault(section, {}) if section else table
        if isinstance(target, dict):
            target[name] = value
    try:
        parse_config(table, "ward.toml")
    except ConfigError as error:
        assert str(error).startswith("ward.toml: ")
        names = {name for (_, name), _ in given_} | {section for (section, _), _ in given_}
        assert any(name and name in str(error) for name in names) or "missing" in str(error) or "top level" in str(error), error


TOML = st.text(st.characters(codec="utf-8"), max_size=80) | st.lists(
    st.sampled_from(
        ["[mqtt]", "[[bed]]", "id", "=", '"a"', "1", "{", "}", "[", "]", ".", "\n", "#", "'''", "nan", "1979-05-27", "\ufeff"]
    ),
    max_size=25,
).map(" ".join)


@given(TOML, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32"]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_text_is_a_configuration_or_is_refused_with_the_name_of_the_file(place: Path, text: str, encoding: str) -> None:
    path = place / "any.toml"
    path.write_bytes(text.encode(encoding, "replace"))
    try:
        load_config(path)
    except ConfigError as error:
        assert str(error).startswith(f"{path}: ")


@given(st.text(max_size=30) | st.sampled_from(ODD))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_whoever_orders_something_is_sent_as_text(place: Path, name: str) -> None:
    with without_the_work(place):
        code, said = outcome(["command", "pause", "--bed=a/b/c", f"--by={name}", "--mqtt=mqtt://h"])
    assert (code, said) == (0, "")
