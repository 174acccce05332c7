"""The network: windows in, rhythm probabilities out. The only package that imports torch."""

from ecgnat_stream.model.checkpoint import ModelCard, load_checkpoint, save_checkpoint, shipped
from ecgnat_stream.model.ecgnat import EcgNat, EcgNatConfig, EcgNatOutput, size
from ecgnat_stream.model.predict import ModelConfig, Prediction, Predictor
from ecgnat_stream.model.preprocess import TOKEN_S

__all__ = [
    "TOKEN_S",
    "EcgNat",
    "EcgNatConfig",
    "EcgNatOutput",
    "ModelCard",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "load_checkpoint",
    "save_checkpoint",
    "shipped",
    "size",
]
