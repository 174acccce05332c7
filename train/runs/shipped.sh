#!/usr/bin/env bash
# The commands behind the shipped weights and their tables in docs/measured/index.md (comparison.sh makes the others); budgets in processor minutes, one thread each,
# or in the steps of 45 and, for CLEAR's pretraining, 38 of them where they were first counted.
# DATA is the folder with mitdb, vfdb, ... and splits.csv. The two forms do not wait for each other: on two cores run them side by side.
# The shipped ECG-NAT was stopped once, after epoch 5, and went on with the mix that the code has now; the shipped BEAT-Net learned before a
# beat beside a tile kept its 0.48 s, and trained anew it was worse on validation records (train/LOG.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data="${1:?folder of the databases}"
export OMP_NUM_THREADS=1 # on a busy machine spinning threads that wait for each other cost more than they bring

# The databases that the shipped networks have seen; there are more now (docs/training.md).
seen=mitdb,vfdb,cudb,nsrdb,cinc2015,cinc2017,ptbxl,ludb,cinc2020,chapman
python -m train.prepare --data "$data" --cache runs/cache --databases "$seen"
python -m train.pretrain --cache runs/cache --out runs/pretrained --minutes 38 --epoch-steps 250 --seed 0
python -m train.pretrain --cache runs/cache --out runs/pretrained-causal --causal --minutes 38 --epoch-steps 250 --seed 1
python -m train.finetune --cache runs/cache --out runs/nano --init runs/pretrained/checkpoint --minutes 52 --epoch-steps 400 \
  --layer-decay 0.85 --seed 0
python -m train.finetune --cache runs/cache --out runs/causal --causal --init runs/pretrained-causal/checkpoint --minutes 42 \
  --epoch-steps 400 --layer-decay 0.85 --seed 0
python -m train.finetune --cache runs/cache --out runs/diag --init runs/pretrained/checkpoint --mix diagnosis --lengths 1000 \
  --minutes 3 --epoch-steps 60 --patience 6 --layer-decay 0.85 --ema 0.99 --seed 0
python -m train.finetune --cache runs/cache --arch beatnet --out runs/beatnet --contrast 0 --steps 9047 --epoch-steps 400 --seed 0
python -m train.pretrain --cache runs/cache --out runs/pretrained-clear --arch clear --steps 5907 --epoch-steps 500 --seed 0
python -m train.finetune --cache runs/cache --arch clear --out runs/clear-hug --contrast 0 --init runs/pretrained-clear/checkpoint \
  --layer-decay 0.85 --steps 7468 --epoch-steps 400 --seed 1
for name in ecgnat-nano ecgnat-nano-causal ecgnat-nano-12lead beatnet clear-hug; do
  run="runs/$name" root="$data" options=(--cache runs/cache --robustness)
  [ "$name" = ecgnat-nano ] && run=runs/nano
  [ "$name" = ecgnat-nano-causal ] && run=runs/causal
  if [ "$name" = ecgnat-nano-12lead ]; then # measured on ptbxl alone
    run=runs/diag root=runs/ptbxl options=()
    mkdir -p "$root" && ln -sfn "$(realpath "$data/ptbxl")" "$(realpath "$data/splits.csv")" "$root"
  fi
  card="models/ecgnat_stream_models/$name/README.md"
  [ "$name" = ecgnat-nano ] && card="ecgnat_stream/weights/$name/README.md"
  python -m train.ship --cache runs/cache --run "$run" --name "$name" --text "$card"
  python -m train.evaluate --data "$root" "${options[@]}" --model "$name" --json "results/$name.json"
  python -m train.card --name "$name" --results "results/$name.json"
done
python -m train.report
python scripts/results_docs.py
