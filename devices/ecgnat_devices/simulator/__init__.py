"""A simulated patient: rhythms by script, a cardiac dipole, electrodes, artefacts, and the truth about all of it."""

from ecgnat_devices.simulator.patient import Patient, Simulated
from ecgnat_devices.simulator.script import SCRIPTS, Artefact, Segment, Signal

__all__ = ["SCRIPTS", "Artefact", "Patient", "Segment", "Signal", "Simulated"]
