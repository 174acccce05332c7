#!/usr/bin/env bash
# The full public databases on GPUs: DATA holds the downloads (mitdb, vfdb, cudb, nsrdb, cinc2015, cinc2017, nstdb, ptbxl, ludb,
# cinc2020, chapman, afdb, ltafdb; what is absent is named and left out). Splits are the published ones where there are any.
# GPUS: how many to use. Not run yet: no figure in this repository comes from it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data="${1:?folder of the databases}"
gpus="${2:-1}"
together() { torchrun --standalone --nproc-per-node "$gpus" -m "$@"; }

python -m train.prepare --data "$data" --cache runs/full/cache --published-splits
for form in "" "--causal"; do
  name="tiny${form/--/-}"
  together train.pretrain --cache runs/full/cache --out "runs/full/$name-pretrained" --size tiny $form \
    --steps 200000 --epoch-steps 2000 --batch 256 --lr 5e-4 --ema 0.9995 --workers 8
  together train.finetune --cache runs/full/cache --out "runs/full/$name" --size tiny $form --holdout \
    --init "runs/full/$name-pretrained/checkpoint" --layer-decay 0.85 \
    --steps 100000 --epoch-steps 2000 --batch 256 --lr 5e-4 --ema 0.9995 --workers 8
  python -m train.evaluate --data "$data" --cache runs/full/cache --model "runs/full/$name/checkpoint" --robustness \
    --json "runs/full/$name.json"
done
# Steps, because minutes would be processor minutes of one thread, on a GPU too: 6,500 of 128 rows are about 50 epochs of PTB-XL
# and 120 of the Challenge 2017.
for task in cinc2017 ptbxl-super; do
  python -m train.study --cache runs/full/cache --init ecgnat=runs/full/tiny-pretrained/checkpoint --size tiny --out runs/full/study \
    --task "$task" --arms "ecgnat,scratch,no-contrastive,no-pretraining,full-attention,xresnet1d101,random-init probe" \
    --batch 128 --steps 6500
done
python -m train.report --results runs/full --study runs/full/study --out runs/full --pages runs/full
