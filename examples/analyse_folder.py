"""Analyse every recording of a folder into one CSV: python examples/analyse_folder.py [FOLDER]. Without one, some are made."""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

import ecgnat_stream as ecgnat
from ecgnat_devices.simulator import Patient, Signal

FS = 250


def simulated(folder: Path) -> Path:
    """Write three CSV files of a minute, one column per lead."""
    for seed, script in enumerate(("sinus", "af", "ectopy")):
        samples = Patient(Signal(fs=FS, leads=("II", "V1"), script=script, seed=seed)).read(60 * FS)
        np.savetxt(folder / f"{script}.csv", samples.T, delimiter=",", header="II,V1", comments="", fmt="%.4f")
    return folder


folder = Path(sys.argv[1]) if len(sys.argv) > 1 else simulated(Path(tempfile.mkdtemp()))
table = csv.writer(sys.stdout)
table.writerow(["file", "beats", "ventricular", "rhythms", "alarms"])
for path in sorted(folder.glob("*.csv")):
    analysis = ecgnat.analyse(path, fs=FS, units="mV")
    ventricular = int((analysis.beats["label"] == "V").sum())
    rhythms = " ".join(dict.fromkeys(analysis.rhythm["label"].tolist()))
    table.writerow([path.name, len(analysis.beats), ventricular, rhythms, len(analysis.alarms)])
