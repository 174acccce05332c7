"""XML from outside, read safely: no entities, nothing fetched, bounded size, depth and number of elements."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from ecgnat_devices.records.contents import Values, wrong

__all__ = ["bytes_of", "number_of", "numbers_of", "read_xml", "text_of"]

_MOST_BYTES = 2**26
"""Largest file: an hour of three leads at 500 Hz has 30 MB in HL7 aECG."""

_READ = "AnnotatedECG (HL7), restingecgdata (Philips), RestingECG and CardiologyXML (GE)"

_MOST_ELEMENTS, _DEEPEST = 2**18, 64
_PIECE = _WORDS = 2**18
_SPACE = re.compile(r"\s")


def read_xml(path: Path, roots: Collection[str], leave_out: Collection[str] = ()) -> Element:
    """Return the root element; tags and attributes have their names without the namespace.

    Parameters
    ----------
    path
        The file.
    roots
        What the root element may be.
    leave_out
        Elements that nobody needs: they are checked as XML, but take no memory.

    Raises
    ------
    DeviceError
        If it is no sound XML, has another root, declares entities, or is larger than any recording.
    """
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise wrong(path, f"has {size} bytes: XML is read up to {_MOST_BYTES}; convert it to EDF or WFDB")
    tree = _Tree(path, frozenset(leave_out))
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.EntityDeclHandler = parser.SkippedEntityHandler = tree.entity
    parser.ExternalEntityRefHandler = tree.entity
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                parser.Parse(piece, False)
        parser.Parse(b"", True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise wrong(path, f"is no sound XML, or it was cut ({error})") from error
    root = tree.builder.close()
    if root.tag not in roots:
        raise wrong(path, f"is XML with the root {root.tag[:40]}: of XML, {_READ} are read")
    return root


class _Tree:
    """Builds the tree of what is not left out, within limits."""

    def __init__(self, path: Path, leave_out: frozenset[str]) -> None:
        self._path, self._leave_out = path, leave_out
        self.builder = TreeBuilder()
        self._depth = self._elements = 0
        self._out_from: int | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._out_from is not None:
            return
        tag = tag.rpartition(":")[2]
        if tag in self._leave_out:
            self._out_from = self._depth
            return
        self._elements += 1
        if self._depth > _DEEPEST or self._elements > _MOST_ELEMENTS:
            raise wrong(
                self._path, f"has more than {_MOST_ELEMENTS} elements, or {_DEEPEST} within one another: that is no recording"
            )
        self.builder.start(tag, {name.rpartition(":")[2]: value for name, value in attributes.items()})

    def end(self, tag: str) -> None:
        if self._out_from is None:
            self.builder.end(tag.rpartition(":")[2])
        elif self._out_from == self._depth:
            self._out_from = None
        self._depth -= 1

    def data(self, text: str) -> None:
        if self._out_from is None:
            self.builder.data(text)

    def entity(self, *_: object) -> NoReturn:
        raise wrong(self._path, "declares or uses entities, which can hide anything: they are not read; save it without a DTD")


def text_of(element: Element | None, place: str = ".") -> str:
    """Return the text of a descendant, without spaces at its ends; "" if it is not there."""
    return "" if element is None else (element.findtext(place) or "").strip()


def number_of(path: Path, text: str, what: str) -> float:
    """Return a number that a file states."""
    try:
        return float(text)
    except ValueError:
        raise wrong(path, f"says {what} is {text[:40]!r}, which is no number") from None


def numbers_of(path: Path, text: str, what: str) -> Values:
    """Return the numbers of a text; what is written as no number ("NaN") is none. It is taken in parts, as words are large."""
    parts, at = [np.empty(0)], 0
    try:
        while at < len(text):
            end = _SPACE.search(text, at + _WORDS)
            stop = len(text) if end is None else end.start()
            parts.append(np.fromiter(map(float, text[at:stop].split()), np.float64))
            at = stop
    except ValueError as error:
        raise wrong(path, f"{what} has samples that are no numbers ({error})") from error
    values = np.concatenate(parts)
    values[~np.isfinite(values)] = np.nan
    return values


def bytes_of(path: Path, text: str, what: str) -> bytes:
    """Return what base64 text stands for (RFC 4648), line breaks left out."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong(path, f"{what} is no base64 ({error})") from error
