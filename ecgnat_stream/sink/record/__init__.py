"""The recorder: a sink that records every bed (``sink``), the files of one (``bed``), its record (``growing_record``)."""

from ecgnat_stream.sink.record.sink import RecordConfig, RecordSink

__all__ = ["RecordConfig", "RecordSink"]
