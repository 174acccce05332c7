#!/usr/bin/env bash
# The tables of CLEAR-HUG (arXiv 2512.24002) from the full public databases: train/runs/clear_hug.sh DATA [GPUS]
# Pretraining, then linear probes with the plain and the HUG head on 1, 10 and 100 % of the labels of six tasks.
# Read in the released code: pretraining on MIMIC-IV-ECG, 100 epochs, 7 x 256 windows per step, AdamW 5e-4 (betas 0.9, 0.98),
# 5 epochs of warm-up, mask ratio 0.8; probes: 100 epochs, batches of 256, AdamW 5e-3, weight decay 0.05, 10 epochs of warm-up.
# Different here: betas and warm-up are those of train.fit.loop; a step has 256 windows per GPU at that rate, however many there are;
# probes are fitted to their optimum (train.compare.probe: no rate, no epochs); pretraining takes the training records of the three benchmarks
# and, beside them, four fifths of DATA/mimic-iv-ecg (800,000 records) where it is there; xresnet1d101 trains beside the probes as in beatnet.sh.
# DATA holds ptbxl, cinc2020, chapman and nstdb, see tables.sh. Not run yet: no figure in this repository comes from it.
source "$(dirname "${BASH_SOURCE[0]}")/tables.sh"

tasks="ptbxl-super ptbxl-sub ptbxl-form ptbxl-rhythm cpsc2018 csn"
fractions="0.01 0.1 1"
size=paper
baseline=tiny # of ECG-NAT
arms="clear probe,clear-hug probe"
batch=256
cnn_batch=128
[ -n "$dry" ] && fractions=0.1,1 size=nano baseline=nano batch=4 cnn_batch=4

number="$(steps 100 "$((batch * gpus))")"
together train.pretrain --cache "$cache" --out "$out/clear-pretrained" --arch clear --size "$size" --mask-ratio 0.8 \
  --batch "$batch" --lr 5e-4 --ema 0.9995 --steps "$number" --epoch-steps "$((number > 100 ? number / 100 : number))" \
  --validation 2 --workers "${WORKERS:-0}"

probes() { # in one epoch: fitted probes take no steps
  learn "$1" "$fractions" 1 "$batch" --out "$out/clear-hug/study" --size "$size" --arms "$arms" \
    --init "clear=$out/clear-pretrained/checkpoint"
  learn "$1" "$fractions" 1 "$batch" --out "$out/clear-hug/study" --size "$baseline" --arms "random-init probe"
  learn "$1" "$fractions" 50 "$cnn_batch" --out "$out/clear-hug/study" --size "$baseline" --arms xresnet1d101 --lr 1e-3
}

spread probes $tasks
tables "$out/clear-hug"
