"""Fibrillation stage: is the heart fibrillating?

``features`` measures 4 s of a lead and weighs what it finds, ``detector`` keeps the signal of all beds and joins their leads,
``kernels`` is both once more, compiled.
"""

from ecgnat_stream.fibrillation.detector import FibrillationConfig, FibrillationDetector, FibrillationFrame
from ecgnat_stream.fibrillation.features import FEATURES, FibrillationWeights, shipped_weights, weigh

__all__ = [
    "FEATURES",
    "FibrillationConfig",
    "FibrillationDetector",
    "FibrillationFrame",
    "FibrillationWeights",
    "shipped_weights",
    "weigh",
]
