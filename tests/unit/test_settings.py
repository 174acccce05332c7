"""Settings: what is wrong is found by a walk of our own and named with its path, whatever a library says of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.settings import read_settings


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
