#!/usr/bin/env bash
# The commands behind "Networks side by side" in docs/measured/index.md: small sizes, the data packs, processor minutes of one thread.
# Parts do not wait for each other: run them side by side. All training is in steps: those of 38 minutes of pretraining, and of a minute
# of fine-tuning as train/runs/steps holds it for every network, both as one machine measured them. Without these files train.study
# measures the minute of the machine it runs on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cache="${1:-runs/cache}"
out="${2:-runs/study}"
export OMP_NUM_THREADS=1 # on a busy machine spinning threads that wait for each other cost more than they bring

mkdir -p "$out"
for file in train/runs/steps/*.steps; do [ -e "$out/${file##*/}" ] || cp "$file" "$out"; done

pretrain() { python -m train.pretrain --cache "$cache" --out "runs/comparison/$1" --seed 0 "${@:2}"; }
pretrain ecgnat --steps 3600 --epoch-steps 250
pretrain ecgnat-beats --masking beats --steps 3600 --epoch-steps 250 # whole heartbeats masked
pretrain clear --arch clear --steps 5907 --epoch-steps 500
pretrain clear-dense --arch clear --attention dense --steps 5095 --epoch-steps 500 # its steps take longer
study() {
  local inits=() name
  for name in ecgnat ecgnat-beats clear clear-dense; do inits+=(--init "$name=runs/comparison/$name/checkpoint"); done
  python -m train.study --cache "$cache" --out "$out" --keep "${inits[@]}" "$@"
}
arms="ecgnat,beatnet,clear,clear-hug,xresnet1d101,random-init probe"
pretrained="ecgnat probe,clear probe,clear-hug probe"
for task in ptbxl-super hospitals-shaoxing; do study --task "$task" --arms "$arms,$pretrained"; done
for task in cinc2017 ptbxl-rhythm; do study --task "$task" --arms "$arms"; done
# What each part brings.
study --task ptbxl-super --fractions 1 --arms "ecgnat-hug,scratch,ecgnat-beats probe,clear-hug-gelu,clear-hug scratch"
study --task ptbxl-super --fractions 1 --arms "clear-hug dense,clear-hug dense pretraining,clear-hug dense probe"
study --task ptbxl-super --fractions 0.01,1 --arms "no-contrastive,no-contrastive beats"
of_beats="beatnet gaps,clear-hug gaps,beatnet errors,clear-hug errors"
for task in ptbxl-super hospitals-shaoxing cinc2017; do study --task "$task" --fractions 1 --arms "$of_beats"; done
# Whether a minute decides: five times the budget.
study --task ptbxl-super --fractions 1 --seeds 0 --minutes 5 --arms "ecgnat,beatnet,clear,clear-hug,xresnet1d101"
study --task ptbxl-super --fractions 1 --seeds 1 --minutes 5 --arms "beatnet,xresnet1d101"
# Where BEAT-Net, trained on rhythm elsewhere, looks in the hospital left out.
for seed in 0 1 2; do
  python -m train.explain --cache "$cache" --model "$out/hospitals-shaoxing-1min-beatnet-1-$seed" --task hospitals-shaoxing --split test \
    --records 0 --out "$out/explain-$seed"
done
python -m train.cost --json results/cost.json
python -m train.report
python scripts/results_docs.py
