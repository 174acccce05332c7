"""What of the model stage can be set. Without torch, so that a configuration is read at once."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["ModelConfig"]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model runs, and how.

    Parameters
    ----------
    name
        Name of a shipped checkpoint (``ecgnat-nano``, ``beatnet``, ``clear-hug``, ...), or the path of a checkpoint directory.
    compile
        "on" compiles every batch size at start-up and needs a C++ compiler, "off" never does, "auto" compiles on CUDA only: see
        docs/models.md for the measurement.
    device
        "auto" takes CUDA where there is one.
    threads
        Threads of the network on a CPU; 0 leaves torch's choice. One leaves the other cores to the signal path: on busy cores,
        threads that wait for each other cost far more than they bring.
    max_batch
        Largest batch; more windows are run in several.
    window_s
        Window length to warm up and compile for, s.
    """

    name: str = "ecgnat-nano"
    compile: Literal["auto", "on", "off"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    max_batch: int = 64
    window_s: float = 10.0
