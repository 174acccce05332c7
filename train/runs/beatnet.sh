#!/usr/bin/env bash
# The tables of BEAT-Net (arXiv 2601.07316) from the full public databases: train/runs/beatnet.sh DATA [GPUS]
# The data-efficiency curve (1 to 100 % of the labels) on three benchmarks, beside xresnet1d101 and a random-init probe; those
# of the first seed with all labels are also read under noise, with fewer leads and with wrong beats (train.judge.by_task).
# Public about the protocol: the benchmarks and the curve. Not public, our decision: AdamW at 1e-3, and what the PTB-XL benchmark
# gives its networks (Strodthoff 2021: 50 epochs, batches of 128). DATA holds ptbxl, cinc2020, chapman and nstdb, see tables.sh.
# Not run yet: no figure in this repository comes from it.
source "$(dirname "${BASH_SOURCE[0]}")/tables.sh"

tasks="ptbxl-super ptbxl-sub ptbxl-form ptbxl-rhythm ptbxl-all cpsc2018 csn"
fractions="0.01 0.05 0.1 0.2 0.3 0.35 0.5 0.75 1"
size=paper
baseline=tiny # of ECG-NAT, which has no size "paper"
arms="xresnet1d101,random-init probe"
epochs=50
batch=128
[ -n "$dry" ] && fractions=0.1,1 size=nano baseline=nano batch=4

curve() {
  learn "$1" "$fractions" "$epochs" "$batch" --out "$out/beatnet/study" --size "$size" --arms beatnet --lr 1e-3 --keep
  learn "$1" "$fractions" "$epochs" "$batch" --out "$out/beatnet/study" --size "$baseline" --arms "$arms" --lr 1e-3
}

spread curve $tasks
tables "$out/beatnet"
