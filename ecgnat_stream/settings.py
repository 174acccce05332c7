"""Settings from a table, as TOML or a caller gives it, into a frozen struct; every mistake is named with its path.

Keys, tables and lists are walked here, value by value, so that what is said of a mistake does not hang on the texts of a library:
``bed[0].lead: unknown key 'lead': did you mean lead_map?``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.suggest import unknown

__all__ = ["read_settings"]

T = TypeVar("T")


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
    mistakes = [f"{place or 'top level'}: {wrong}" for place, wrong in _mistakes(table, kind, path)]
    if mistakes:
        raise ConfigError(f"{where}{'; '.join(mistakes)}")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}{error}") from error


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
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield path, str(error)


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
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
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
    members = [kind]
    while any(get_origin(member) in (Union, UnionType, Annotated) for member in members):
        members = [part for member in members for part in _parts(member)]
    if isinstance(value, Mapping):
        fitting = [member for member in members if isinstance(member, type) and issubclass(member, msgspec.Struct)]
        fitting += [member for member in members if get_origin(member) is dict]
    elif isinstance(value, list | tuple):
        fitting = [member for member in members if get_origin(member) in (list, tuple)]
    else:
        fitting = [member for member in members if len(members) == 1 and isinstance(member, type)]
        fitting = [member for member in fitting if issubclass(member, msgspec.Struct)]
    return fitting[0] if len(fitting) == 1 else kind


def _parts(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        return get_args(kind)[:1]
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
