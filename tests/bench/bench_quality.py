"""What the quality stage makes of noise and of hearts, and whether its index is the probability that it says it is.

    python tests/bench/bench_quality.py --data ROOT [--split test] [--json FILE] [--calibration]

Noise of nstdb, scaled to an SNR per lead (power of the QRS complexes as nst defines it, peak-to-peak squared over 8), is mixed
into 60 s of every mitdb record of the split, and into quiet lines; rhythms and noise of vfdb, cudb, cinc2015 (16 s before true
alarms), cinc2017 as annotated. Prints per group the mean index, the share of noisy and moving lead-frames, and the share of
frames in which the bed is usable. The last 5 minutes of each noise are used.

With --calibration also the reliability of the index: QRS complexes are detected on every lead alone, and a frame's index is held
against whether no beat was missed and none false (150 ms) in the 4 s before its end. On training records the weights are fitted
anew without a fifth of the records and tried on these (``as shipped``: not so), on test records those shipped are used. They are
fitted by ``python -m train.signal.quality``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ecgnat_stream.quality import FEATURES, STATES, weigh
from ecgnat_stream.signal import FRAME_S
from train.signal.quality import Samples, fit, reliability, samples
from train.signal.quality_frames import Frames, everything

FOLDS = 5


def calibration(root: Path, split: str, groups: dict[str, Frames]) -> dict[str, Any]:
    """Return the reliability of the index of records that the weights have not seen."""
    chosen = {
        group: frames for group, frames in groups.items() if (group.endswith("dB") and "line" not in group) or group == "clean"
    }
    x, index, truth, record = (
        np.concatenate(part)
        for part in zip(
            *[
                (
                    f.measured.reshape(-1, len(FEATURES)),
                    f.sqi.reshape(-1),
                    f.right.reshape(-1),
                    np.repeat(f.record, f.sqi.shape[1]),
                )
                for f in chosen.values()
            ],
            strict=True,
        )
    )
    known, shipped, index = truth >= 0, index, index.copy()
    if split == "train":
        data = samples(everything(root, "train", True))
        fold = {name: k % FOLDS for k, name in enumerate(np.unique(np.where(record == "202", "201", record)))}
        fold["202"] = fold.get("201", 0)  # one person
        for k in range(FOLDS):
            kept = np.array([fold.get(name, -1) != k for name in data.record])
            weights = fit(Samples(*(part[kept] for part in data)))
            of = np.array([fold[name] == k for name in record])
            index[of] = weigh(weights, x[of].T)[0]
    found = {"all": reliability(index[known], truth[known]), "as shipped": reliability(shipped[known], truth[known])}
    return found | {
        name: reliability(index[of & known], truth[of & known])
        for name, of in (
            (group, np.repeat([g == group for g in chosen], [f.sqi.size for f in chosen.values()])) for group in chosen
        )
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--calibration", action="store_true")
    arguments = parser.parse_args()
    groups = everything(arguments.data, arguments.split, False)
    report: dict[str, Any] = {}
    print(f"{'group':<34}{'minutes':>8}{'index':>8}{'right':>8}{'noisy %':>9}{'motion %':>9}{'other %':>9}{'usable %':>10}")
    for group, frames in groups.items():
        if not len(frames.usable):
            continue
        share = [float((frames.state == code).mean()) for code in range(len(STATES))]
        known = frames.right >= 0
        report[group] = row = {
            "minutes": round(len(frames.usable) * FRAME_S / 60, 1),
            "index": round(float(frames.sqi.mean()), 3),
            "right": round(float(frames.right[known].mean()), 3) if known.any() else None,
            "states": {state: round(part, 4) for state, part in zip(STATES, share, strict=True) if part},
            "usable": round(float(frames.usable.mean()), 4),
        }
        right_of = "" if row["right"] is None else f"{row['right']:.2f}"
        print(
            f"{group:<34}{row['minutes']:8.1f}{row['index']:8.2f}{right_of:>8}{100 * share[1]:9.1f}{100 * share[2]:9.1f}"
            f"{100 * sum(share[3:]):9.1f}{100 * row['usable']:10.1f}"
        )
    if arguments.calibration:
        report["calibration"] = calibration(arguments.data, arguments.split, groups)
        for group, found in report["calibration"].items():
            print(f"{group:<12} ECE {found['ece']:.3f}, Brier {found['brier']:.3f} (constant {found['brier_of_a_constant']:.3f})")
        for step in report["calibration"]["all"]["table"]:
            said, true = step["index"], step["right"]
            print(f"index from {step['from']:.1f}: {step['frames']:7d} lead-frames, mean {said:.3f}, right {true:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
