"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length: all workers of a run must find the same names, and packed bytes hold the time of day."""
    return f"{len(val)}bytes" if isinstance(val, bytes) else None


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


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the right form that has learned nothing: for tests of everything around the network.

    What it says varies with the signal, but always most for sinus rhythm, so that no alarm hangs on how the weights were drawn.
    """
    import torch

    from ecgnat_stream.model import EcgNat, ModelCard, save_checkpoint, size

    torch.manual_seed(0)
    model = size("nano")
    network = EcgNat(model)
    with torch.no_grad():
        network.rhythm_head.linear.bias[model.rhythm_classes.index("SINUS")] = 1.0
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "untrained", network, ModelCard(model=model))


@pytest.fixture(params=["numpy", "numba"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test twice: with the plain code of the stages, and with their compiled kernels, where numba is installed."""
    name: str = request.param
    if name == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv("ECGNAT_KERNELS", "on" if name == "numba" else "off")
    return name


@pytest.fixture
def free_port() -> int:
    """Return a port on loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
