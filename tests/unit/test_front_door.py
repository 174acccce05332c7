"""The package's own names: what is exported, that it is imported only when it is used, and that type checkers see it."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import ecgnat_stream


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_import_alone_loads_nothing_heavy() -> None:
    loaded = loaded_by("import ecgnat_stream")
    assert not loaded & {"torch", "numpy", "scipy", "msgspec", "asyncio", "wfdb", "pandas", "textual"}
    assert {name for name in loaded if name.startswith("ecgnat_stream.")} == set()


def test_the_words_of_events_need_no_torch() -> None:
    assert "torch" not in loaded_by("from ecgnat_stream import Alarm, Rhythm, SampleBlock, StreamInfo, EcgnatError")


def test_the_monitoring_begins_before_torch_is_loaded() -> None:
    assert "torch" not in loaded_by("import ecgnat_stream.monitor")


def test_every_name_is_there_and_listed() -> None:
    for name in ecgnat_stream.__all__:
        assert getattr(ecgnat_stream, name) is not None
        assert name in dir(ecgnat_stream)
    with pytest.raises(AttributeError, match="has no attribute 'Monitr'"):
        _ = ecgnat_stream.Monitr


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(ecgnat_stream.__file__).read_text(encoding="utf-8"))
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    found = {(node.module, alias.name) for node in seen.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert found == {(f"ecgnat_stream.{home}", name) for home, names in ecgnat_stream._HOMES.items() for name in names}
    assert {name for _, name in found} | {"__version__"} == set(ecgnat_stream.__all__)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(ecgnat_stream).failed == 0
