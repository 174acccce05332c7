"""What of the model stage can be set. Without torch, so that a configuration is read at once."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from ecgnat_stream.settings import PathText, Settings, Within

__all__ = ["ModelConfig"]


class ModelConfig(Settings, frozen=True, kw_only=True):
    """Which model runs, and how.

    Parameters
    ----------
    name
        Name of a shipped checkpoint (``ecgnat-nano``, ``beatnet``, ``clear-hug``, ...), or the path of a checkpoint directory.
    mode
        "window" has the network read the last seconds anew each time, "stream" only what is new, with what it remembers of each
        bed: far cheaper, and only for a network that does not look ahead, or reads heartbeats. "auto" streams with the former
        alone: see docs/models.md.
    past
        Numbers in which ECG-NAT, token by token, keeps what it remembers of beds; "float16" takes half the memory.
    compile
        What ``ecgnat compile`` has prepared is used unless this is "off". Where nothing fits, "on" compiles every batch size at
        start-up and needs a C++ compiler, "auto" does so on CUDA only: see docs/models.md for the measurement.
    runtime
        "onnx" runs the network in onnxruntime on a CPU, as ``ecgnat compile --onnx`` has written it.
    packages
        Folder of what ``ecgnat compile --out`` has prepared, code that is run as it is; empty for this account's cache.
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

    section: ClassVar[str] = "model"

    name: str = "ecgnat-nano"
    mode: Literal["auto", "window", "stream"] = "auto"
    past: Literal["float32", "float16"] = "float32"
    compile: Literal["auto", "on", "off"] = "auto"
    runtime: Literal["torch", "onnx"] = "torch"
    packages: PathText = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Within(0, 256, "0 leaves the choice to torch, and no machine has more")] = 1
    max_batch: Annotated[int, Within(1, 1024, "a larger batch makes every bed in it wait")] = 64
    window_s: Annotated[float, Within(4, 60, "the network needs a few beats, and knows windows of up to a minute")] = 10.0
