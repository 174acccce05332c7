"""Settings from a table, as TOML or a caller gives it, into a frozen struct; every mistake is named with its path.

Keys, tables and lists are walked here, value by value, so that what is said of a mistake does not hang on the texts of a library:
``bed[0].lead: unknown key 'lead': did you mean lead_map?``. Every number of a :class:`Settings` has bounds with a reason, which
hold for a struct that is built in Python too. Infinity and NaN are refused everywhere in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from math import isfinite
from types import UnionType
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.places import path_of
from ecgnat_stream.suggest import unknown

__all__ = ["DEEPEST", "PathText", "Settings", "Within", "bounds_of", "fields_of", "read_settings"]

T = TypeVar("T")

DEEPEST = 24
"""Tables and lists may lie so deep within each other; none of ours lies deeper than five."""

_LARGEST = 2**63
"""No setting needs a whole number as large as this."""


class Within(NamedTuple):
    """Bounds of a number, both included, and why it may not lie beyond them: ``Annotated[float, Within(3, 10, "...")]``."""

    low: float
    high: float
    reason: str


class _Path(NamedTuple):
    """Marks a text that is a path."""


PathText = Annotated[str, _Path()]
"""A path, as :func:`~ecgnat_stream.places.path_of` reads it; empty where none is set. A :class:`Settings` holds it expanded."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one stage: a number outside its :class:`Within` is refused, however the struct is made; so is a path.

    ``section`` is the name of its table in the file.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check every number, and put home folders and variables into every path.

        Raises
        ------
        ConfigError
            Naming every number that is out of bounds, with the bounds and the reason, and every path that cannot be one.
        """
        bounds = bounds_of(type(self))
        wrong = [(key, _beyond(getattr(self, key), within)) for key, within in bounds.items()]
        for key in _paths_of(type(self)):
            try:
                if written := getattr(self, key):
                    msgspec.structs.force_setattr(self, key, str(path_of(written)))
            except ConfigError as error:
                wrong.append((key, str(error)))
        mistakes = [f"{self.section}.{key}".lstrip(".") + f": {what}" for key, what in wrong if what]
        if mistakes:
            raise ConfigError("; ".join(mistakes))


@cache
def fields_of(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """Return what a struct is made of, by the keys of its table; looking into annotations takes milliseconds."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@cache
def bounds_of(kind: type[msgspec.Struct]) -> dict[str, Within]:
    """Return the bounds of the numbers of a struct, by their names."""
    return {name: mark for name, mark in _marks(kind) if isinstance(mark, Within)}


@cache
def _paths_of(kind: type[msgspec.Struct]) -> list[str]:
    return [name for name, mark in _marks(kind) if isinstance(mark, _Path)]


def _marks(kind: type[msgspec.Struct]) -> Iterator[tuple[str, Any]]:
    """Yield what the annotations of a struct say beside the types."""
    for field in fields_of(kind).values():
        for part in (field.type, *get_args(field.type)):
            yield from ((field.name, mark) for mark in getattr(part, "__metadata__", ()))


def _beyond(value: Any, within: Within) -> str:
    """Say what is wrong with a number, nothing if it lies within its bounds; None stands for no number."""
    if value is None or (isinstance(value, int | float) and within.low <= value <= within.high):
        return ""
    return f"{value} must be {within.low:g} to {within.high:g}: {within.reason}"


def read_settings(table: Mapping[str, Any], kind: type[T], where: str = "", path: str = "") -> T:
    """Build a struct from a table.

    Parameters
    ----------
    kind
        A ``msgspec.Struct``.
    where
        Goes before every message: the file, the device.
    path
        Of the table within its file, if it is not the whole.

    Raises
    ------
    ConfigError
        Naming the path of every key that is unknown, missing, of a wrong type or out of bounds.
    """
    found = list(_no_numbers(table, path)) or list(_mistakes(table, kind, path))
    mistakes = [f"{place or 'top level'}: {wrong}" for place, wrong in found]
    if mistakes:
        raise ConfigError(f"{where}{'; '.join(mistakes)}")
    try:
        return msgspec.convert(table, kind)
    except (msgspec.ValidationError, UnicodeEncodeError, ConfigError) as error:
        raise ConfigError(f"{where}{error}") from error


def _no_numbers(value: Any, path: str, deep: int = 0) -> Iterator[tuple[str, str]]:
    """Yield where a table holds what no setting can be: NaN, infinity, a number of twenty digits, a table without end."""
    if isinstance(value, float) and not isfinite(value):
        yield path, f"{value} is no number that anything can be set to"
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        yield path, f"a whole number of {len(f'{abs(value):x}') * 4} bits is larger than anything can be set to"
    elif isinstance(value, Mapping | list | tuple) and deep == DEEPEST:
        yield path, f"tables within tables, more than {DEEPEST} deep"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _no_numbers(part, f"{path}.{key}".lstrip("."), deep + 1)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _no_numbers(part, f"{path}[{index}]", deep + 1)


def _mistakes(value: Any, kind: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield where the values of a table do not fit, and what is wrong with them: parts first, then the whole."""
    meant = _member(value, kind)
    if isinstance(meant, type) and issubclass(meant, msgspec.Struct) and not isinstance(value, meant):
        yield from _mistakes_of_table(value, meant, path)
        return
    within = list(_mistakes_within(value, meant, path))
    yield from within
    if within:
        return  # of the whole nothing else can be said
    try:
        converted = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield path, str(error)
        return
    except UnicodeEncodeError:
        yield path, f"{value!a} holds a character that is none"
        return
    for mark in getattr(kind, "__metadata__", ()):
        if isinstance(mark, Within) and (wrong := _beyond(converted, mark)):
            yield path, wrong


def _mistakes_within(value: Any, meant: Any, path: str) -> Iterator[tuple[str, str]]:
    arguments = get_args(meant)
    if get_origin(meant) in (list, tuple) and isinstance(value, list | tuple):
        same = get_origin(meant) is list or arguments[1:] == (...,)
        if not same and len(arguments) != len(value):
            yield path, f"{len(arguments)} values are needed, not {len(value)}"
        for index, part in enumerate(value):
            yield from _mistakes(part, arguments[0 if same else index], f"{path}[{index}]")
    elif get_origin(meant) is dict and isinstance(value, Mapping):
        for key, part in value.items():
            yield from _mistakes(part, arguments[1], f"{path}.{key}")


def _mistakes_of_table(value: Any, kind: type[msgspec.Struct], path: str) -> Iterator[tuple[str, str]]:
    fields = fields_of(kind)
    if not isinstance(value, Mapping):
        yield path, f"a table of {', '.join(fields)} is needed, not {value!r}"
        return
    for key in value:
        if key not in fields and key != kind.__struct_config__.tag_field:
            yield f"{path}.{key}".lstrip("."), unknown("key", str(key), fields)
    for name, field in fields.items():
        if name in value:
            yield from _mistakes(value[name], field.type, f"{path}.{name}".lstrip("."))
        elif field.required:
            yield f"{path}.{name}".lstrip("."), "missing; it has no default"


def _member(value: Any, kind: Any) -> Any:
    """Return what of a type a table or a list is meant to be: the struct or list of a union, without its bounds."""
    members = _members(kind)
    if isinstance(value, Mapping):
        fitting = [member for member in members if isinstance(member, type) and issubclass(member, msgspec.Struct)]
        fitting += [member for member in members if get_origin(member) is dict]
    elif isinstance(value, list | tuple):
        fitting = [member for member in members if get_origin(member) in (list, tuple)]
    else:
        fitting = [member for member in members if len(members) == 1 and isinstance(member, type)]
        fitting = [member for member in fitting if issubclass(member, msgspec.Struct)]
    return fitting[0] if len(fitting) == 1 else kind


def _members(kind: Any) -> list[Any]:
    """Return what a type may be: the members of its unions, without their bounds."""
    members = [kind]
    while any(get_origin(member) in (Union, UnionType, Annotated) for member in members):
        members = [part for member in members for part in _parts(member)]
    return members


def _parts(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        return get_args(kind)[:1]
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
