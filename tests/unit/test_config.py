"""The configuration: every key is documented, every mistake is named with its path."""

from __future__ import annotations

import importlib.util
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.config import load_config, parse_config
from ecgnat_stream.errors import ConfigError

ROOT = Path(__file__).parents[2]
BED = {"id": "a", "device": "simulate"}


def test_the_example_is_a_configuration() -> None:
    with files("ecgnat_stream").joinpath("example.toml").open("rb") as file:
        config = load_config(Path(file.name))
    assert [config.name_of(bed) for bed in config.bed] == ["hospital/icu/bed-1", "hospital/icu/bed-2"]
    assert config.mqtt is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sight": 1}, r"^x: sight: unknown key 'sight': did you mean site\?$"),
        ({"alarm": {"asystole": 4}}, r"^x: alarm\.asystole: unknown key 'asystole': did you mean asystole_s\?$"),
        ({"bed": [{**BED, "lead": {}}]}, r"^x: bed\[0\]\.lead: unknown key 'lead': did you mean lead_map\? There are id, device"),
        ({"mqtt": {"uri": "mqtt://a"}}, r"^x: mqtt\.uri: unknown key 'uri': did you mean url\?$"),
        ({"schedule": {"hop_s": "fast"}}, r"^x: schedule\.hop_s: .*float.*str"),
        ({"schedule": {"hop_s": 0.3}}, r"schedule\.hop_s = 0\.3: must be a whole number"),
        ({"bed": [{"device": "simulate"}]}, r"^x: bed\[0\]\.id: missing"),
        ({"bed": [BED, BED]}, r"site/unit/a is configured more than once"),
        ({"bed": [7]}, r"^x: bed\[0\]: a table of id, device, .* is needed, not 7"),
        ({"bed": {"id": "a"}}, r"^x: bed: .*array.*object"),
        ({"bed": [{**BED, "lead_map": {"a": "II", "b": 2}}]}, r"^x: bed\[0\]\.lead_map\.b: .*str.*int"),
        ({"mqtt": 1}, r"^x: mqtt: .*int"),
        ({"mqtt": {"confirm": "a/b"}}, r"mqtt\.confirm = 'a/b': up to 80 letters"),
        ({"mqtt": {"confirm_within_s": 31}}, r"mqtt\.confirm_within_s: 31.* must be 1 to 30"),
        ({"bed": [{**BED, "confirm": "a b"}]}, r"bed\.confirm = 'a b'"),
        ({"model_late_s": 9}, r"^x: model_late_s: .*5"),
        ({"bed": [{**BED, "id": "a/b"}]}, r"bed\.id = 'a/b': only letters"),
        ({"site": "a+b"}, r"site = 'a\+b'"),
        ({"alarm": {"asystole_s": 30}}, r"alarm\.asystole_s: 30\.0 must be 3 to 10"),
    ],
)
def test_mistakes_are_named_with_their_path(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(table, "x")


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read .*ecgnat run --example"):
        load_config(tmp_path / "none.toml")
    path = tmp_path / "broken.toml"
    path.write_text("site = \n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.toml: is not TOML: .*line 1"):
        load_config(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = " + b"[" * 5000 + b"]" * 5000, "tables within tables"),
        (b"a" + b".a" * 5000 + b" = 1", "tables within tables|more than 24 deep"),
        (b"ring_s = 1" + b"0" * 10_000, "is not TOML: .*digits"),
        (b"ring_s = 1" + b"0" * 400, "ring_s: a whole number of .* bits"),
        (b"ring_s = 1e999", "ring_s: inf is no number"),
        (b"[alarm]\nvf_s = nan", r"alarm\.vf_s: nan is no number"),
        (b"[alarm]\nvf_s = 4\nvf_s = 5", "is not TOML: .*overwrite"),
        (b"[alarm]\n[alarm]", "is not TOML: .*twice"),
        (bytes(range(256)) * 10, "is not TOML"),
        (b"\0" * 1000, "is not TOML"),
        (b"# " + b"x" * 1_000_000, "is larger than the 1 MB"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"odd\.toml: .*({said})"):
        load_config(path)


def test_a_monitor_has_so_many_beds_and_no_more() -> None:
    beds = [{"id": str(number), "device": "simulate"} for number in range(4001)]
    assert len(parse_config({"bed": beds[:1000]}).bed) == 1000
    with pytest.raises(ConfigError, match="4001 beds are more than the 4000 of one process"):
        parse_config({"bed": beds})


def test_limits_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fibrillation\.floor_mv = 0\.15 must be below fibrillation\.full_mv = 0\.1"):
        parse_config({"fibrillation": {"floor_mv": 0.15, "full_mv": 0.1}})
    with pytest.raises(ConfigError, match=r"rhythm\.leave = 0\.6 is above rhythm\.enter = 0\.5"):
        parse_config({"rhythm": {"leave": 0.6}})
    with pytest.raises(ConfigError, match=r"bed\[0\]\.alarm\.vf_s: nan is no number"):
        parse_config({"bed": [{**BED, "alarm": {"vf_s": float("nan")}}]})
    with pytest.raises(ConfigError, match=r"bed a: lead_map: 'X' is mapped to an unknown lead 'VII'"):
        parse_config({"bed": [{**BED, "lead_map": {"X": "VII"}}]})


def test_a_unit_of_its_own_overrides_the_monitors() -> None:
    config = parse_config({"site": "s", "unit": "u", "bed": [BED, {**BED, "unit": "v"}]})
    assert [config.name_of(bed) for bed in config.bed] == ["s/u/a", "s/v/a"]


def test_a_bed_names_its_own_receiver_or_none_and_the_others_have_that_of_all() -> None:
    beds = [BED, {**BED, "id": "b", "confirm": ""}, {**BED, "id": "c", "confirm": "pager"}]
    config = parse_config({"site": "s", "unit": "u", "worker": "w", "mqtt": {"confirm": "central-1"}, "bed": beds})
    assert config.receivers == {"s/engine/w": "central-1", "s/u/a": "central-1", "s/u/b": "", "s/u/c": "pager"}


def test_a_receiver_needs_a_broker() -> None:
    with pytest.raises(ConfigError, match=r"bed a: confirm = 'pager' needs \[mqtt\]"):
        parse_config({"bed": [{**BED, "confirm": "pager"}]})
    assert parse_config({"worker": "w", "bed": [{**BED, "confirm": ""}]}).receivers == {"site/engine/w": "", "site/unit/a": ""}


def test_the_documentation_is_that_of_the_settings() -> None:
    spec = importlib.util.spec_from_file_location("configuration_docs", ROOT / "scripts" / "configuration_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python scripts/configuration_docs.py"


@pytest.mark.parametrize(("content", "line"), [(b'site = "x"\runit = "y"\r', 1), (b'site = "x"\r\nunit = "y"\r# done', 2)])
def test_line_breaks_of_the_old_mac_are_refused_with_the_cure(content: bytes, line: int, tmp_path: Path) -> None:
    path = tmp_path / "ward.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"is not TOML: a line break \(line {line}\) is a CR alone.*save it with .*tr "):
        load_config(path)
