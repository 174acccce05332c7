"""Fixtures of the device tests."""

from __future__ import annotations

import pytest

from ecgnat_stream.testing import InstantClock


@pytest.fixture
def clock() -> InstantClock:
    """Return a clock on which waiting takes no time."""
    return InstantClock()
