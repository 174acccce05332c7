"""The beats stage: QRS complexes, their class, and the heart rate. Frames of conditioned signal in, beats out."""

from ecgnat_stream.beats.classify import BeatClassifier
from ecgnat_stream.beats.detector import DECISION_S, BeatFrame, BeatsConfig, QrsDetector, refine
from ecgnat_stream.beats.rate import HeartRate
from ecgnat_stream.beats.windows import find_beats

__all__ = ["DECISION_S", "BeatClassifier", "BeatFrame", "BeatsConfig", "HeartRate", "QrsDetector", "find_beats", "refine"]
