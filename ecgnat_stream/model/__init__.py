"""The network: windows in, rhythm probabilities out. The only package that imports torch."""

from ecgnat_stream.model.checkpoint import ModelCard, find_checkpoint, load_checkpoint, save_checkpoint, shipped
from ecgnat_stream.model.ecgnat import EcgNat, EcgNatConfig, size
from ecgnat_stream.model.network import HEADS, Network, NetworkOutput
from ecgnat_stream.model.networks import ARCHITECTURES, build, configured
from ecgnat_stream.model.predict import ModelConfig, Prediction, Predictor

__all__ = [
    "ARCHITECTURES",
    "HEADS",
    "EcgNat",
    "EcgNatConfig",
    "ModelCard",
    "ModelConfig",
    "Network",
    "NetworkOutput",
    "Prediction",
    "Predictor",
    "build",
    "configured",
    "find_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "shipped",
    "size",
]
