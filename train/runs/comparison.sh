#!/usr/bin/env bash
# The commands behind "Networks side by side" in docs/results.md: small sizes, the data packs, processor minutes of one thread.
# Parts do not wait for each other: run them side by side. Pretraining is in steps, those of 38 minutes where they were counted first.
# A minute of fine-tuning is as many steps as the first run of a task measures ("$out/<task>.steps"). docs/results/study.md was made
# on two machines, with the steps of the first: its table of steps, as 60 s / steps in those files, gives the same runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cache="${1:-runs/cache}"
out="${2:-runs/study}"
export OMP_NUM_THREADS=1 # on a busy machine spinning threads that wait for each other cost more than they bring

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
pretrained="ecgnat probe,clear probe,clear-hug probe,clear-hug dense probe"
study --task ptbxl-super --arms "$arms,$pretrained,scratch,clear-hug scratch"
study --task ptbxl-super --fractions 1 --arms "ecgnat-hug,clear-hug-gelu,clear-hug dense,clear-hug dense pretraining"
study --task ptbxl-super --fractions 0.01,1 --arms "no-contrastive,no-contrastive beats,ecgnat-beats probe"
for task in hospitals-shaoxing cinc2017; do
  study --task "$task" --arms "$arms,$pretrained"
done
study --task hospitals-ptbxl --fractions 0.1,0.3,1 --arms "$arms,$pretrained,scratch,clear-hug scratch" # 1 % is one record
study --task ptbxl-rhythm --fractions 1 --arms "$arms"
# Whether a minute decides: five times the budget.
study --task ptbxl-super --fractions 1 --seeds 0 --minutes 5 --arms "ecgnat,beatnet,clear,clear-hug,xresnet1d101"
python -m train.cost --json docs/results/cost.json
python -m train.report
python scripts/results_docs.py
