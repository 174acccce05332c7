#!/usr/bin/env bash
# The first shipped checkpoint, ecgnat-nano: prepare, train, calibrate, ship, evaluate. DATA is the folder with mitdb, vfdb, ... and splits.csv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data="${1:?folder of the databases}"
export OMP_NUM_THREADS=1 # a busy machine: spinning threads that wait for each other cost more than they bring

python -m train.prepare --data "$data" --cache runs/cache
python -m train.rhythm --cache runs/cache --out runs/nano --size nano --minutes 44 --lr 1e-3 --threads 1 --seed 0
python -m train.ship --cache runs/cache --run runs/nano --name ecgnat-nano
python -m train.evaluate_rhythm --cache runs/cache --checkpoint ecgnat-nano --out docs/results/rhythm.json
