"""A recording through the whole monitor at once: an array, a file or a wfdb record in, tables and a summary out.

``source`` opens what is given, ``drive`` puts it through the ward without asyncio, ``tables`` makes NumPy tables of the events,
``result`` holds them. The events are those of a replay; where looking ahead tells more than the monitor could say at the time,
the tables say more.
"""

from ecgnat_stream.analysis.diagnoses import diagnose
from ecgnat_stream.analysis.result import Analysis
from ecgnat_stream.analysis.run import analyse, analyse_many
from ecgnat_stream.analysis.source import condition_samples
from ecgnat_stream.analysis.summary import Summary

__all__ = ["Analysis", "Summary", "analyse", "analyse_many", "condition_samples", "diagnose"]
