"""Settings: what is wrong is found by a walk of our own and named with its path, whatever a library says of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
import pytest

from ecgnat_stream.config import Config
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.settings import DEEPEST, Settings, Within, bounds_of, read_settings


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    name: str = ""


class Tagged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="tagged"):
    size: int = 0


class Whole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"own": "its-own"}):
    parts: tuple[Part, ...] = ()
    some: Annotated[list[Part], msgspec.Meta(max_length=2)] | None = None
    pair: tuple[int, str] = (0, "")
    named: dict[str, Part] = {}
    one: Part | None = None
    tagged: Tagged | None = None
    shade: Literal["red", "green"] | float = "red"
    own: int = 0


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"part": 1}, r"^file: part: unknown key 'part': did you mean parts or pair\? There are parts, some, pair"),
        ({"own": 1}, r"^file: own: unknown key 'own': did you mean one or its-own\?"),
        (
            {"parts": [{"size": 1}, {"size": 1, "colour": 2}]},
            r"^file: parts\[1\]\.colour: unknown key 'colour': there are size, name$",
        ),
        ({"parts": [{}]}, r"^file: parts\[0\]\.size: missing"),
        ({"parts": [{"size": 0}]}, r"^file: parts\[0\]\.size: .*1$"),
        ({"some": [{"size": "large"}]}, r"^file: some\[0\]\.size: .*int.*str"),
        ({"some": [{"size": 1}] * 3}, r"^file: some: .*2$"),
        ({"pair": [1]}, "^file: pair: 2 values are needed, not 1"),
        ({"pair": [1, 2]}, r"^file: pair\[1\]: .*str.*int"),
        ({"named": {"x": {"size": 1.5}}}, r"^file: named\.x\.size: .*int.*float"),
        ({"one": []}, "^file: one: .*array"),
        ({"one": {"size": 1, "sizes": 2}}, r"^file: one\.sizes: unknown key"),
        ({"tagged": {"kind": "tagged", "sizes": 2}}, r"^file: tagged\.sizes: unknown key"),
        (
            {"part": 1, "parts": [{"size": 0}, {"colour": 1}]},
            r"^file: part: .*; parts\[0\]\.size: .*; parts\[1\]\.colour: .*; parts\[1\]\.size: missing",
        ),
        ({"shade": "blue"}, "^file: shade: "),
        ([], "^file: top level: a table of parts, .* is needed"),
    ],
)
def test_mistakes_are_named_with_their_path(table: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(table, Whole, where="file: ")


def test_what_is_right_becomes_a_struct() -> None:
    part = Part(size=2, name="x")
    table = {"parts": [{"size": 2, "name": "x"}, part], "one": part, "named": {"a": {"size": 2, "name": "x"}}, "its-own": 3}
    table |= {"some": [part], "pair": [1, "y"], "tagged": {"kind": "tagged", "size": 1}, "shade": 2.0}
    assert read_settings(table, Whole) == Whole(
        parts=(part, part), one=part, named={"a": part}, own=3, some=[part], pair=(1, "y"), tagged=Tagged(size=1), shade=2.0
    )


def test_the_path_of_a_part_goes_before_its_keys() -> None:
    with pytest.raises(ConfigError, match=r"^alarm\.colour: unknown key"):
        read_settings({"size": 1, "colour": 1}, Part, path="alarm")


class Stage(Settings, frozen=True, kw_only=True):
    section: ClassVar[str] = "stage"

    wait_s: Annotated[float, Within(1, 5, "longer hides it")] = 2.0
    count: Annotated[int, Within(1, 9, "more is too many")] = 3
    limit: Annotated[float, Within(0, 1, "it is a share")] | None = None
    name: str = ""


def numbers_without_bounds(kind: type[msgspec.Struct]) -> list[str]:
    """Return the numbers among the settings of a struct, and of those within it, that no bounds hold."""
    found: list[str] = []
    for field in msgspec.structs.fields(kind):
        parts = [field.type]
        for part in parts:
            parts += get_args(part)
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                found += [f"{field.name}.{name}" for name in numbers_without_bounds(part)]
        if {int, float} & set(parts) and field.name not in bounds_of(kind):
            found.append(field.name)
    return list(dict.fromkeys(found))


def test_every_number_that_can_be_set_has_bounds_and_a_reason() -> None:
    assert numbers_without_bounds(Config) == []
    assert numbers_without_bounds(Whole) == [
        "parts.size",
        "some.size",
        "pair",
        "named.size",
        "one.size",
        "tagged.size",
        "shade",
        "own",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.99, 5.01, "2", [3.0]])
def test_a_struct_made_in_python_keeps_its_bounds(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^stage\.wait_s: .* must be 1 to 5: longer hides it; stage\.count: 0 must be"):
        Stage(wait_s=value, count=0)
    with pytest.raises(ConfigError, match=r"^stage\.wait_s"):
        msgspec.structs.replace(Stage(), wait_s=value)


def test_bounds_belong_to_what_is_allowed() -> None:
    assert Stage(wait_s=1.0, count=9, limit=1.0) == read_settings({"wait_s": 1, "count": 9, "limit": 1}, Stage)
    assert list(bounds_of(Stage)) == ["wait_s", "count", "limit"]
    with pytest.raises(ConfigError, match=r"^file: x\.wait_s: 9\.0 must be 1 to 5: .*; x\.count: 10 must be 1 to 9: more is"):
        read_settings({"wait_s": 9, "count": 10}, Stage, "file: ", "x")
    with pytest.raises(ConfigError, match=r"^stage\.limit: 1\.5 must be 0 to 1: it is a share"):
        Stage(limit=1.5)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "nan is no number"),
        (float("inf"), "inf is no number"),
        (10**400, r"a whole number of \d+ bits is larger"),
        ({"deeper": [{"still": float("nan")}]}, "nan is no number"),
    ],
)
def test_what_no_setting_can_be_is_refused_wherever_it_stands(value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^bed\[0\]\.options\.x.*: {said}"):
        read_settings({"bed": [{"id": "a", "options": {"x": value}}]}, Config)


def test_tables_within_tables_have_an_end() -> None:
    table: dict[str, Any] = {}
    for _ in range(100_000):
        table = {"x": table}
    with pytest.raises(ConfigError, match=rf"more than {DEEPEST} deep$"):
        read_settings({"alarm": table}, Config)
