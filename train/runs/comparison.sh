#!/usr/bin/env bash
# The commands behind "Networks side by side" in docs/results.md: small sizes, the data packs, processor minutes of one thread.
# INIT is ECG-NAT's pretrained encoder (train/runs/shipped.sh, 38 minutes). Parts do not wait for each other: run them side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
init="${1:-runs/pretrained/checkpoint}"
cache="${2:-runs/cache}"
out="${3:-runs/study}"
export OMP_NUM_THREADS=1 # on a busy machine spinning threads that wait for each other cost more than they bring

python -m train.pretrain --cache "$cache" --out runs/pretrained-clear --arch clear --minutes 38 --epoch-steps 500 --seed 0
python -m train.pretrain --cache "$cache" --out runs/pretrained-clear-dense --arch clear --attention dense --minutes 38 \
  --epoch-steps 500 --seed 0
# The same size, minutes and ratio as INIT, but whole heartbeats are masked.
python -m train.pretrain --cache "$cache" --out runs/pretrained-beats --masking beats --minutes 38 --epoch-steps 250 --seed 0
study() {
  python -m train.study --cache "$cache" --out "$out" --keep --init "ecgnat=$init" \
    --init clear=runs/pretrained-clear/checkpoint --init clear-dense=runs/pretrained-clear-dense/checkpoint \
    --init ecgnat-beats=runs/pretrained-beats/checkpoint "$@"
}
arms="ecgnat,beatnet,clear,clear-hug,xresnet1d101,random-init probe"
pretrained="ecgnat probe,clear probe,clear-hug probe,clear-hug dense probe"
study --task ptbxl-super --arms "$arms,$pretrained,scratch,clear-hug scratch"
study --task ptbxl-super --fractions 1 --arms "no-contrastive,ecgnat-hug,clear-hug-gelu,clear-hug dense,clear-hug dense pretraining"
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
