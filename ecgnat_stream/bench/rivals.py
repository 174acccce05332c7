"""What others do, to be measured beside ours: each library is imported only when it is asked for; one that is missing is said.

torch_ecg's convolutional recurrent network as its own configuration builds it; xresnet1d101, which leads the PTB-XL benchmark,
from this project's training, which is optional here as any library is; QRS detectors of wfdb and neurokit2.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Missing", "conv_recurrent", "natten_there", "neurokit", "residual", "sample", "xqrs"]

_CLASSES = ("N", "A", "O", "~")


class Missing(Exception):  # noqa: N818 - it is no error that something optional is not there
    """A library that is not installed, or does not work here; says what is left out and how to get it."""


def _library(module: str, package: str, what: str, extra: str = "bench") -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        hint = f"pip install 'ecgnat-stream[{extra}]'" if extra else f"pip install {package}"
        raise Missing(f"{package} is not there ({error}): {what} is left out; {hint}") from None


def conv_recurrent() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return torch_ecg's ``ECG_CRNN`` of its standard configuration, untrained, and what makes its input of windows at 100 Hz."""
    models = _library("torch_ecg.models", "torch_ecg", "the comparison with its CRNN")
    configs = _library("torch_ecg.model_configs", "torch_ecg", "the comparison with its CRNN")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = models.ECG_CRNN(classes=list(_CLASSES), n_leads=12, config=configs.ECG_CRNN_CONFIG)
    return network.eval(), lambda windows: windows


def residual() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return xresnet1d101, untrained, and what makes its input."""
    baselines = _library("train.fit.baselines", "ecgnat-stream", "the comparison with xresnet1d101", extra="train")
    network = baselines.build("xresnet1d101")
    return network.eval(), network.prepare


def natten_there() -> None:
    """Check that natten is installed.

    Raises
    ------
    Missing
        If it is not.
    """
    _library("natten", "natten", "the comparison with its attention", extra="natten")


def xqrs() -> Callable[[NDArray[np.float64], float], NDArray[np.int64]]:
    """Return wfdb's detector: one lead, a whole record at once."""
    detect = _library("wfdb.processing", "wfdb", "the comparison with xqrs", extra="").xqrs_detect
    return lambda lead, fs: np.asarray(detect(lead, fs, verbose=False), np.int64)


def neurokit() -> Callable[[NDArray[np.float64], float], NDArray[np.int64]]:
    """Return neurokit2's detector: its cleaning and its standard method, one lead, a whole record at once."""
    library = _library("neurokit2", "neurokit2", "the comparison with its detector")

    def detect(lead: NDArray[np.float64], fs: float) -> NDArray[np.int64]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clean = library.ecg_clean(lead, sampling_rate=round(fs))
            return np.asarray(library.ecg_peaks(clean, sampling_rate=round(fs))[1]["ECG_R_Peaks"], np.int64)

    return detect


def sample(windows: int) -> Tensor:
    """Return windows ``(B, 12, 1000)`` of noise at 100 Hz, mV."""
    return 0.3 * torch.from_numpy(np.random.default_rng(0).standard_normal((windows, 12, 1000)).astype(np.float32))
