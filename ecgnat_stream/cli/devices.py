"""``ecgnat devices``: the adapters and their options."""

from __future__ import annotations

import argparse
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add ``ecgnat devices`` to the parser."""
    parser = commands.add_parser("devices", help="list the device adapters and their options")
    parser.set_defaults(command=_devices)


def _devices(_: argparse.Namespace) -> int:
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from ecgnat_stream.device import adapter, device_names

    console = Console(markup=False, highlight=False)
    for name in device_names():
        kind = adapter(name)
        about = (kind.__doc__ or "").strip().partition("\n")[0]  # python -OO leaves docstrings out
        title = f"{name}: {about}" if about else name
        table = Table("option", "type", "default", title=title, title_justify="left")
        for option in msgspec.structs.fields(kind.Options):
            default = "required" if option.required else repr(option.default)
            table.add_row(option.encode_name, _type_name(option.type), default)
        console.print(table)
    console.print("What each option means: docs/configuration.md", style="dim")
    return 0


def _type_name(kind: Any) -> str:
    """Return a type as a person would write it: number, text, one of ..."""
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        return _type_name(parts[0])
    if get_origin(kind) is Literal:
        return " or ".join(map(str, parts))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_type_name(part) for part in parts if part is not type(None))
    if get_origin(kind) is tuple:
        return f"list of {_type_name(parts[0])}"
    names = {"float": "number", "int": "whole number", "str": "text", "bool": "true or false"}
    name: str = kind.__name__
    return names.get(name, name)
