"""Quality stage: how far each lead can be trusted, and whether anything can be decided from a bed.

``contact`` looks at the device's samples, ``features`` at the conditioned ones, ``estimator`` joins what they say.
"""

from ecgnat_stream.quality.estimator import STATES, QualityConfig, QualityEstimator, QualityFrame
from ecgnat_stream.quality.features import FEATURES, QualityWeights, weigh

__all__ = ["FEATURES", "STATES", "QualityConfig", "QualityEstimator", "QualityFrame", "QualityWeights", "weigh"]
