#!/usr/bin/env bash
# Two teachers, and two students alone, from one and from both teachers, on BCCD at 160 px.
#
#   BCCD_ROOT=data/BCCD/ benchmarks/bccd_small.sh [SEED ...]      (seeds of the students: 0 1 2)
#   STUDENTS=r18 BCCD_ROOT=data/BCCD/ benchmarks/bccd_small.sh    (one of: r18 mobilenetv2)
#
# What is finished is not run again. Prints the table of docs/results.md.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=work_dirs/bccd_small
SEEDS=("${@:-0}")
[ $# -gt 0 ] || SEEDS=(0 1 2)
read -r -a STUDENTS <<<"${STUDENTS:-r18 mobilenetv2}"

run() {  # run NAME WORK_DIR SEED
    local config=configs/bccd_small/centernet_$1.py
    [ -f "$2/metrics.json" ] && return
    echo "$config -> $2" >&2
    mkdir -p "$2"
    python tools/train.py "$config" --work-dir "$2" --resume --cfg-options randomness.seed="$3" \
        >>"$2/log.txt" 2>&1
    python tools/test.py "$config" "$2/epoch_24.pth" --work-dir "$2" --out "$2/metrics.json" \
        >>"$2/log.txt" 2>&1
}

for teacher in r50 hourglass; do
    run $teacher $OUT/centernet_$teacher 0
done
for seed in "${SEEDS[@]}"; do
    for student in "${STUDENTS[@]}"; do
        for kind in '' st_ mt_; do
            run $kind$student "$OUT/seed$seed/centernet_$kind$student" "$seed"
        done
    done
done

python - $OUT "${STUDENTS[*]}" "${SEEDS[@]}" <<'PYTHON'
import json
import statistics
import sys
from pathlib import Path

out, students, seeds = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3:]


def mean_ap(folder):
    return 100 * json.loads((folder / 'metrics.json').read_text())['pascal_voc/mAP']


print(f'| model | mAP, mean of {len(seeds)} seeds | each |\n| --- | --- | --- |')
for name in ('r50', 'hourglass'):
    print(f'| teacher {name} | {mean_ap(out / f"centernet_{name}"):.2f} | one seed |')
for student in students:
    for kind, title in (('', 'alone'), ('st_', 'one teacher'), ('mt_', 'two teachers')):
        values = [mean_ap(out / f'seed{s}/centernet_{kind}{student}') for s in seeds]
        print(f'| {student}, {title} | {statistics.mean(values):.2f} | '
              f'{", ".join(f"{v:.2f}" for v in values)} |')
PYTHON
