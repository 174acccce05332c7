"""The network: windows in, rhythm probabilities out. The only package that imports torch, and only where a network is needed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ecgnat_stream.model.catalogue import (
    Mode,
    NetworkEntry,
    check_model,
    find_checkpoint,
    is_damaged,
    list_models,
    monitoring,
    reading_mode,
)
from ecgnat_stream.model.config import ModelConfig
from ecgnat_stream.weights import shipped

if TYPE_CHECKING:
    from ecgnat_stream.model.checkpoint import ModelCard, load_checkpoint, save_checkpoint
    from ecgnat_stream.model.ecgnat import EcgNat, EcgNatConfig, size
    from ecgnat_stream.model.network import HEADS, Network, NetworkOutput
    from ecgnat_stream.model.networks import ARCHITECTURES, build, configured
    from ecgnat_stream.model.predict import Predictor
    from ecgnat_stream.model.prediction import Prediction
    from ecgnat_stream.model.reading import Reader

__all__ = [
    "ARCHITECTURES",
    "HEADS",
    "EcgNat",
    "EcgNatConfig",
    "Mode",
    "ModelCard",
    "ModelConfig",
    "Network",
    "NetworkEntry",
    "NetworkOutput",
    "Prediction",
    "Predictor",
    "Reader",
    "build",
    "check_model",
    "configured",
    "find_checkpoint",
    "is_damaged",
    "list_models",
    "load_checkpoint",
    "monitoring",
    "reading_mode",
    "save_checkpoint",
    "shipped",
    "size",
]

_WITH_TORCH = {
    "checkpoint": ("ModelCard", "load_checkpoint", "save_checkpoint"),
    "ecgnat": ("EcgNat", "EcgNatConfig", "size"),
    "network": ("HEADS", "Network", "NetworkOutput"),
    "networks": ("ARCHITECTURES", "build", "configured"),
    "predict": ("Predictor",),
    "prediction": ("Prediction",),
    "reading": ("Reader",),
}


def __getattr__(name: str) -> Any:
    for module, names in _WITH_TORCH.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
