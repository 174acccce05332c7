"""Recordings on disk as one thing: rate, leads, length, and samples in mV read in pieces.

One module for each format says what a file holds (:class:`~ecgnat_devices.records.contents.Contents`); ``opening`` makes a
recording of it: which signals, in which order, in mV. Every way in which a file can be wrong is a permanent
:class:`~ecgnat_stream.errors.DeviceError` that names the file, what is wrong and what to do.
"""

from ecgnat_devices.records.contents import Units
from ecgnat_devices.records.opening import OpenRecord, Samples, open_record
from ecgnat_stream.recordings import Format

__all__ = ["Format", "OpenRecord", "Samples", "Units", "open_record"]
