"""The alarm stage: observations of one bed in, alarms out. Decides priority once; no sink works it out again."""

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.engine import AlarmEngine
from ecgnat_stream.alarm.history import CALM_SCORE
from ecgnat_stream.alarm.picture import PHYSIOLOGICAL, BeatMark, Condition, Evidence, Finding, Observation, pvc_per_min
from ecgnat_stream.alarm.technical import TECHNICAL

__all__ = [
    "CALM_SCORE",
    "PHYSIOLOGICAL",
    "TECHNICAL",
    "AlarmConfig",
    "AlarmEngine",
    "BeatMark",
    "Condition",
    "Evidence",
    "Finding",
    "Observation",
    "pvc_per_min",
]
