# Sourced by beatnet.sh, clear_hug.sh and ecgnat_tables.sh: from the full public databases to the tables of a paper.
# DATA holds ptbxl (PTB-XL), cinc2020 (CPSC2018: its training_2018 folder of the Challenge 2020) and cinc2020 or chapman
# (Chapman-Shaoxing-Ningbo: WFDBRecords of ecg-arrhythmia 1.0.0). mimic-iv-ecg is taken for pretraining where it is there.
# GPUS: how many to use; tasks are spread over them. OUT: folder for all files; the cache is shared by the three scripts.
# DRY=1 goes through everything with the smallest networks, two steps, one seed, one task: only to see that it works.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data="${1:?folder of the databases}"
gpus="${2:-1}"
out="${OUT:-runs/full}"
dry="${DRY:-}"
cache="$out/cache"

databases=ptbxl,cinc2020,chapman
[ -d "$data/mimic-iv-ecg" ] && databases="$databases,mimic-iv-ecg"
if [ ! -f "$cache/records.json" ]; then
  python -m train.prepare --data "$data" --cache "$cache" --published-splits --databases "$databases"
  python -m train.tasks --cache "$cache"
fi

# together MODULE OPTIONS...: on all GPUs
together() {
  if [ -n "$dry" ] || [ "$gpus" = 1 ]; then python -m "$@"; else torchrun --standalone --nproc-per-node "$gpus" -m "$@"; fi
}

# steps EPOCHS BATCH [TASK FRACTION]: a published number of epochs as steps
steps() {
  if [ -n "$dry" ]; then echo 2; else
    python -m train.tasks --cache "$cache" --epochs "$1" --batch "$2" ${3:+--task "$3"} ${4:+--fraction "$4"}
  fi
}

# learn TASK FRACTIONS EPOCHS BATCH OPTIONS...: train.study for every fraction, with the steps of that many epochs
learn() {
  local task="$1" fractions="$2" epochs="$3" batch="$4" fraction
  shift 4
  for fraction in $fractions; do
    python -m train.study --cache "$cache" --task "$task" --fractions "$fraction" --seeds "$seeds" --batch "$batch" \
      --steps "$(steps "$epochs" "$batch" "$task" "$fraction")" "$@"
  done
}

# spread FUNCTION TASK...: one task per GPU at a time
spread() {
  local function="$1" number=0 task pids=() pid
  shift
  for task in "$@"; do
    if [ "$gpus" = 1 ]; then
      "$function" "$task"
      continue
    fi
    CUDA_VISIBLE_DEVICES="$((number % gpus))" "$function" "$task" &
    pids+=("$!")
    number=$((number + 1))
    if [ "$((number % gpus))" = 0 ]; then
      for pid in "${pids[@]}"; do wait "$pid"; done
      pids=()
    fi
  done
  for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid"; done
}

# tables FOLDER: the pages and plots of the runs in it
tables() {
  mkdir -p "$1/evaluations"
  python -m train.report --results "$1/evaluations" --study "$1/study" --out "$1"
  cat "$1/study.md"
}

seeds=0,1,2
[ -n "$dry" ] && seeds=0
return 0
