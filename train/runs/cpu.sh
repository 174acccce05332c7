#!/usr/bin/env bash
# Every program of the training once, in about ten minutes on two CPU cores with the data packs: prepare, both stages, evaluation.
# DATA is the folder with mitdb, vfdb, ... and splits.csv. Too short to be good: it shows that all of it works.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data="${1:?folder of the databases}"
export OMP_NUM_THREADS=1 # on a busy machine spinning threads that wait for each other cost more than they bring
out=runs/cpu

python -m train.prepare --data "$data" --cache runs/cache
python -m train.pretrain --cache runs/cache --out "$out/pretrained" --minutes 2 --epoch-steps 100 --validation 2 --seed 0
python -m train.finetune --cache runs/cache --out "$out/nano" --init "$out/pretrained/checkpoint" --minutes 2 --epoch-steps 200 --seed 0
python -m train.evaluate --data "$data" --cache runs/cache --model "$out/nano/checkpoint" --split val --json "$out/evaluation.json"
