"""What this machine can carry: ``ecgnat bench``.

In come the settings of a run, out goes a :class:`~ecgnat_stream.bench.report.Report`: beds sustained in real time, latency from
the last sample to the event, processor time and memory of every stage, start-up, speed of whole recordings, and ratios against
other ways to do the same, each beside the roofline of the machine. Nothing here needs data: a simulated ward is the load.

``run`` does the parts in order, ``report`` holds what they say, ``show`` draws it. ``live`` is one trial in a process of its own,
``feeder`` its load, ``stages`` shares its cost out; ``search`` looks for the most beds; ``soak`` runs for hours. What needs a
library of others is in ``rivals``.
"""

from ecgnat_stream.bench.report import SCHEMA, Report
from ecgnat_stream.bench.run import PARTS, BenchOptions, bench
from ecgnat_stream.bench.soak import SoakOptions, soak

__all__ = ["PARTS", "SCHEMA", "BenchOptions", "Report", "SoakOptions", "bench", "soak"]
