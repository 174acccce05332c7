"""The conditioning stage: device samples in, the 200 Hz signal of every other stage out, without pacing spikes."""

from ecgnat_stream.condition.conditioner import ConditionConfig, Conditioner, Spikes, condition_record, condition_records

__all__ = ["ConditionConfig", "Conditioner", "Spikes", "condition_record", "condition_records"]
