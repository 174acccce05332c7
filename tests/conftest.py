"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of the recorded databases, or skip."""
    root = os.environ.get("ECGNAT_DATA")
    if not root:
        pytest.skip("ECGNAT_DATA is not set: no recorded databases")
    path = Path(root)
    if not (path / "mitdb").is_dir():
        pytest.fail(f"ECGNAT_DATA={root} holds no mitdb folder")
    return path
