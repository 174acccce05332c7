"""Analyse an array: simulated here, yours in practice. Run: python examples/analyse_array.py"""

import ecgnat_stream as ecgnat
from ecgnat_devices.simulator import Patient, Segment, Signal

FS = 250
LEADS = ("II", "V1")

script = [Segment(rhythm="sinus", seconds=30), Segment(rhythm="pvc", seconds=30, every=4), Segment(rhythm="vt", seconds=20)]
samples = Patient(Signal(fs=FS, leads=LEADS, script=script, seed=1)).read(80 * FS)  # (2, 20000) in mV

analysis = ecgnat.analyse(samples, fs=FS, leads=LEADS)
print(analysis.summary())
for span in analysis.rhythm:
    print(f"{span['start_s']:6.1f} to {span['stop_s']:6.1f} s  {span['label']}")
for alarm in analysis.alarms:
    print(f"{alarm['start_s']:6.1f} s  {alarm['priority']} priority: {alarm['condition']}")
