"""The ward: the signal of all beds on its way from the devices to the alarm engines.

``ward`` knows the beds and lets their frames flow, ``bed`` is one of them, ``signal_path`` holds the rings and the signal stages
of the beds of one rate, ``reports`` makes events of what was found.
"""

from ecgnat_stream.ward.signal_path import FrameResult
from ecgnat_stream.ward.ward import BedProgress, Ward

__all__ = ["BedProgress", "FrameResult", "Ward"]
