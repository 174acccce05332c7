#!/usr/bin/env bash
# The tables of ECG-NAT (arXiv 2605.13194) from the full public databases: train/runs/ecgnat_tables.sh DATA [GPUS]
# Pretraining, then fine-tuning with and without pretraining and contrastive loss on 1, 10 and 100 % of the labels, and HUG as a head.
# Public about the protocol: the two stages, the dual loss, the small parts of the labels. Not public, our decision: size tiny,
# 100 epochs of pretraining and 50 of fine-tuning, learning rates, batches (docs/models.md). All arms see equally many rows, but
# the contrastive loss takes two rows of a record: for ecgnat and no-pretraining the 50 epochs are 25 of the records.
# DATA holds ptbxl, cinc2020, chapman and nstdb, see tables.sh.
# Not run yet: no figure in this repository comes from it.
source "$(dirname "${BASH_SOURCE[0]}")/tables.sh"

tasks="ptbxl-super ptbxl-sub ptbxl-form ptbxl-rhythm ptbxl-all cpsc2018 csn chapman-rhythm hospitals-shaoxing hospitals-ptbxl"
fractions="0.01 0.1 1"
size=tiny
arms="ecgnat,ecgnat-hug,scratch,no-contrastive,no-pretraining,ecgnat probe,random-init probe,xresnet1d101"
epochs=50
batch=128
[ -n "$dry" ] && fractions=0.1,1 size=nano batch=4

number="$(steps 100 "$((batch * gpus))")"
together train.pretrain --cache "$cache" --out "$out/ecgnat-pretrained" --size "$size" --batch "$batch" --lr 5e-4 --ema 0.9995 \
  --steps "$number" --epoch-steps "$((number > 100 ? number / 100 : number))" --validation 2 --workers "${WORKERS:-0}"

arms_of() {
  learn "$1" "$fractions" "$epochs" "$batch" --out "$out/ecgnat/study" --size "$size" --arms "$arms" --lr 1e-3 --keep \
    --init "ecgnat=$out/ecgnat-pretrained/checkpoint"
}

spread arms_of $tasks
tables "$out/ecgnat"
