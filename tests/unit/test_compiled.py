"""Compiled kernels: used when they were prepared for exactly this machine and code, and never by surprise."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgnat_stream import compiled
from ecgnat_stream.errors import ConfigError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep everything in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiled.SETTING, raising=False)
    kept = compiled._prepared, compiled._digest, compiled._numba
    for answer in kept:
        answer.cache_clear()
    yield tmp_path
    for answer in kept:
        answer.cache_clear()


@pytest.fixture
def no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing to compile: these tests are about the stamp."""
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "_sources", lambda: iter(()))


def test_a_start_does_not_compile() -> None:
    assert not compiled.kernels_wanted()
    assert compiled.describe().startswith("numpy: ")


def test_what_was_prepared_is_used_until_something_changes(no_sources: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ecgnat compile" in compiled.describe()
    compiled.prepare_kernels()
    assert compiled.kernels_wanted()
    assert compiled.describe().startswith("compiled by numba")
    monkeypatch.setattr(compiled, "_processor", lambda: "another")
    compiled._prepared.cache_clear()
    assert "another processor" in compiled.describe()
    monkeypatch.undo()


def test_other_sources_are_not_prepared(own_cache: Path, no_sources: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.prepare_kernels()
    first = list((own_cache / "ecgnat-stream/kernels").iterdir())
    monkeypatch.setattr(compiled, "_digest", lambda: "other")
    compiled._prepared.cache_clear()
    assert not compiled.kernels_wanted()
    compiled.prepare_kernels()
    assert compiled.kernels_wanted()
    assert not first[0].exists(), "what no code can use any more is taken away"


def test_every_module_of_kernels_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    taken: list[str] = []
    monkeypatch.setattr(compiled, "import_module", taken.append)
    assert compiled.prepare_kernels() == taken
    assert "ecgnat_stream.condition.kernels" in taken
    assert "ecgnat_stream.beats.kernels.peaks" in taken
    assert all(find_spec(name) for name in taken)


def test_the_setting(monkeypatch: pytest.MonkeyPatch, no_sources: None) -> None:
    compiled.prepare_kernels()
    monkeypatch.setenv(compiled.SETTING, "off")
    assert compiled.describe() == "numpy: ECGNAT_KERNELS=off"
    monkeypatch.setenv(compiled.SETTING, "On")
    assert compiled.kernels_wanted()
    monkeypatch.setenv(compiled.SETTING, "fast")
    with pytest.raises(ConfigError, match="none of auto, on, off"):
        compiled.kernels_wanted()


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_numba", lambda: False)
    assert "not installed" in compiled.describe()
    monkeypatch.setenv(compiled.SETTING, "on")
    with pytest.raises(ConfigError, match=r"pip install 'ecgnat-stream\[fast\]'"):
        compiled.kernels_wanted()
    with pytest.raises(ConfigError, match="need numba"):
        compiled.prepare_kernels()


def test_a_folder_that_others_write_to_is_not_trusted(own_cache: Path, no_sources: None) -> None:
    compiled.prepare_kernels()
    folder = next((own_cache / "ecgnat-stream/kernels").iterdir())
    folder.chmod(0o777)
    compiled._prepared.cache_clear()
    assert "not this account's" in compiled.describe()
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        compiled.prepare_kernels()


def test_an_account_without_a_home_has_nothing_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(compiled, "cache_folder", lambda name: _raise(ConfigError("HOME is not set")))
    monkeypatch.setattr(compiled, "_numba", lambda: True)
    assert compiled.describe() == "numpy: HOME is not set"


def _raise(error: Exception) -> Path:
    raise error


def test_a_kernel_is_kept_and_exact(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    before = numba.config.CACHE_DIR

    def add_up(rows: NDArray[np.float64], total: NDArray[np.float64]) -> None:
        for row in range(len(rows)):
            for value in rows[row]:
                total[row] += value

    total = np.zeros(2)
    compiled.kernel("void(float64[:, ::1], float64[::1])")(add_up)(np.array([[0.1, 0.2, 0.3], [1e16, 1.0, -1e16]]), total)
    assert total.tolist() == [0.1 + 0.2 + 0.3, 0.0], "added in the order written"
    assert list(own_cache.rglob("*.nbi"))
    assert before == numba.config.CACHE_DIR, "other users of numba keep their setting"
    monkeypatch.setattr(compiled, "_own_folder", lambda: None)
    compiled.kernel("void(float64[:, ::1], float64[::1])")(add_up)(np.ones((2, 1)), total)
    assert total.tolist() == [0.1 + 0.2 + 0.3 + 1.0, 1.0], "compiled all the same where nothing can be kept"
