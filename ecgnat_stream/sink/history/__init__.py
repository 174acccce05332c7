"""The alarm history: a sink that writes an SQLite file (``sink``), the file itself (``store``), and reading it (``read``)."""

from ecgnat_stream.sink.history.read import unfinished
from ecgnat_stream.sink.history.sink import HistoryConfig, HistorySink

__all__ = ["HistoryConfig", "HistorySink", "unfinished"]
