#!/usr/bin/env bash
# The first shipped checkpoint, ecgnat-nano: prepare, train, calibrate, ship, evaluate. DATA is the folder with mitdb, vfdb, ... and splits.csv.
# The shipped weights came about in one run of this schedule that was stopped and resumed four times while the sampler was being mended
# (train/LOG.md): epochs 1 to 8 without --holdout and with run A's sampler, so these commands give a sibling, not the same weights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data="${1:?folder of the databases}"
export OMP_NUM_THREADS=1 # a busy machine: spinning threads that wait for each other cost more than they bring

python -m train.prepare --data "$data" --cache runs/cache
python -m train.rhythm --cache runs/cache --out runs/nano --size nano --minutes 69 --lr 1e-3 --threads 1 --seed 0 --holdout
python -m train.ship --cache runs/cache --run runs/nano --name ecgnat-nano
python -m train.evaluate_rhythm --cache runs/cache --checkpoint ecgnat-nano --out docs/results/rhythm.json
