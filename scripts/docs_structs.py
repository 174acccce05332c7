"""An extension of griffe: the constructor that msgspec makes of a struct's fields stands on the API pages; roles become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")


class Structs(griffe.Extension):
    """Gives every subclass of ``msgspec.Struct`` the ``__init__`` that it has when the program runs."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Show roles of Sphinx as code, with the last part of the name, and ``::`` before a block as a colon."""
        if obj.docstring is not None:
            text = _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", obj.docstring.value)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.M)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Find the structs once all modules of the package are read."""
        _visit(pkg)


def _visit(holder: griffe.Module | griffe.Class) -> None:
    for member in list(holder.members.values()):
        if isinstance(member, griffe.Class) and "__init__" not in member.members and (fields := _fields(member)):
            own = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
            member.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(own, *fields.values())))
        if isinstance(member, griffe.Module | griffe.Class):
            _visit(member)


def _fields(struct: griffe.Class) -> dict[str, griffe.Parameter]:
    """Return the fields of a struct and of the structs that it comes from, by name; none if it is no struct."""
    try:
        line = [*reversed(struct.mro()), struct]
    except ValueError:  # a class whose bases griffe does not know
        return {}
    if not any(str(base).endswith("Struct") for one in line for base in one.bases):
        return {}
    attributes = [member for one in line for member in one.members.values() if isinstance(member, griffe.Attribute)]
    return {
        field.name: griffe.Parameter(
            field.name, annotation=field.annotation, kind=griffe.ParameterKind.keyword_only, default=field.value
        )
        for field in attributes
        if field.annotation is not None and "instance-attribute" in field.labels and "property" not in field.labels
    }
