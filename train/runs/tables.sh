# Sourced by beatnet.sh, clear_hug.sh and ecgnat_tables.sh: from the full public databases to the tables of a paper.
# DATA holds ptbxl (PTB-XL), cinc2020 (CPSC2018: training/cpsc_2018 of the Challenge 2020), chapman (Chapman-Shaoxing-Ningbo:
# WFDBRecords of ecg-arrhythmia 1.0.0) and nstdb (MIT-BIH Noise Stress Test: the noise of the augmentation and of the noise rows).
# ludb (tasks across hospitals) and mimic-iv-ecg (pretraining) are taken where they are there. A task that finds no records is skipped, and said to be.
# GPUS: how many to use; tasks are spread over them. OUT: folder for all files; the cache is shared by the three scripts.
# DRY=1 goes through all tasks and arms with the smallest networks, one step, two parts of the labels and one seed: only to see
# that it works.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data="${1:?folder of the databases}"
gpus="${2:-1}"
out="${OUT:-runs/tables}"
dry="${DRY:-}"
cache="$out/cache"

if [ ! -d "$data/nstdb" ]; then
  echo "$data/nstdb is missing: MIT-BIH Noise Stress Test, the noise of the augmentation and of the noise rows" >&2
  exit 1
fi
databases=ptbxl,cinc2020,chapman
for more in ludb mimic-iv-ecg; do [ -d "$data/$more" ] && databases="$databases,$more"; done
if [ ! -f "$cache/records.json" ] || ! grep -q '"noise":true' "$cache/manifest.json"; then
  python -m train.prepare --data "$data" --cache "$cache" --published-splits --databases "$databases"
  python -m train.tasks --cache "$cache"
fi

# together MODULE OPTIONS...: on all GPUs
together() {
  if [ -n "$dry" ] || [ "$gpus" = 1 ]; then python -m "$@"; else torchrun --standalone --nproc-per-node "$gpus" -m "$@"; fi
}

# steps EPOCHS BATCH [TASK FRACTION]: a published number of epochs as steps
steps() {
  if [ -n "$dry" ]; then echo 1; else
    python -m train.tasks --cache "$cache" --epochs "$1" --batch "$2" ${3:+--task "$3"} ${4:+--fraction "$4"}
  fi
}

# study OPTIONS...: train.study; dry, it is put down for studies
study() {
  if [ -n "$dry" ]; then printf '%q ' "$@" >>"$out/dry" && echo >>"$out/dry"; else python -m train.study "$@"; fi
}

# studies: what was put down, in one process, because starting one takes longer than a dry study
studies() {
  python - "$out/dry" <<'EOF'
import shlex
import sys
from train.fit.loop import processes
from train.study import main, options
with processes() as world:
    for line in open(sys.argv[1]):
        main(options().parse_args(shlex.split(line)), world)
EOF
}

# learn TASK FRACTIONS EPOCHS BATCH OPTIONS...: train.study for every fraction, with the steps of that many epochs
learn() {
  local task="$1" fractions="$2" epochs="$3" batch="$4" fraction
  shift 4
  for fraction in $fractions; do
    study --cache "$cache" --task "$task" --fractions "$fraction" --seeds "$seeds" --batch "$batch" \
      --steps "$(steps "$epochs" "$batch" "$task" "$fraction")" "$@"
  done
}

# known TASK...: those that have records to train, to choose and to test
known() {
  python - "$cache" "$@" <<'EOF'
import sys
from pathlib import Path
import msgspec
from train.data.pack import Cached
from train.data.tasks import PARTS, TASKS
records = msgspec.json.decode((Path(sys.argv[1]) / "records.json").read_bytes(), type=list[Cached])
for name in sys.argv[2:]:
    if lacking := [part for part in PARTS if not TASKS[name].records(records, part)]:
        print(f"{name}: skipped, no {', no '.join(lacking)} records", file=sys.stderr)
    else:
        print(name)
EOF
}

# spread FUNCTION TASK...: one task per GPU at a time
spread() {
  local function="$1" number=0 task tasks pids=() pid
  shift
  tasks="$(known "$@")"
  for task in $tasks; do
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
  [ -z "$dry" ] || studies
  mkdir -p "$1/evaluations"
  python -m train.report --results "$1/evaluations" --study "$1/study" --out "$1" --pages "$1"
  cat "$1/study.md"
}

seeds=0,1,2
[ -n "$dry" ] && seeds=0 && : >"$out/dry"
return 0
