#!/usr/bin/env bash
# Every method on a part of CIFAR-10, for a few epochs: that it runs and learns, not how good it is.
#
#   DATA_ROOT=data benchmarks/cifar_smoke.sh [METHOD ...]      (all of configs/classification/methods)
#
# ResNet-8 alone and from a ResNet-20 that was trained on all images. What is finished is not run
# again. Prints the table of docs/results.md.
set -euo pipefail
cd "$(dirname "$0")/.."
CONFIG=configs/classification/distill.py
OUT=work_dirs/cifar_smoke
IMAGES=10000
EPOCHS=10
TEACHER_EPOCHS=10
export DATA=cifar10 DATA_ROOT=${DATA_ROOT:-data}
if [ $# -gt 0 ]; then METHODS=("$@"); else
    mapfile -t METHODS < <(cd configs/classification/methods && ls ./*.py | xargs -n 1 basename -s .py)
fi

run() {  # run NAME EPOCHS OPTION ...
    local name=$1 epochs=$2
    shift 2
    [ -f "$OUT/$name/epoch_$epochs.pth" ] && return
    echo "$name" >&2
    mkdir -p "$OUT/$name"
    # The recipe's steps at 150, 180 and 210 of 240 epochs, in proportion.
    python tools/train.py $CONFIG --work-dir "$OUT/$name" --cfg-options \
        train_cfg.max_epochs="$epochs" train_cfg.val_interval="$epochs" \
        default_hooks.checkpoint.interval="$epochs" \
        param_scheduler.0.milestones="[$((epochs * 150 / 240)),$((epochs * 180 / 240)),$((epochs * 210 / 240))]" \
        "$@" >"$OUT/$name/log.txt" 2>&1
}

METHOD=ce STUDENT=resnet20 run teacher_resnet20 $TEACHER_EPOCHS
for method in "${METHODS[@]}"; do
    METHOD=$method STUDENT=resnet8 TEACHER=resnet20 \
        TEACHER_CHECKPOINT=$OUT/teacher_resnet20/epoch_$TEACHER_EPOCHS.pth \
        run "$method" $EPOCHS train_dataloader.dataset.max_samples=$IMAGES
done

python - $OUT "${METHODS[@]}" <<'PYTHON'
import json
import sys
from pathlib import Path

out, methods = Path(sys.argv[1]), sys.argv[2:]
print('| method | top-1 |\n| --- | --- |')
for name in ('teacher_resnet20', *methods):
    epochs = json.loads((out / name / 'accuracy.json').read_text())
    print(f"| {name} | {epochs[max(epochs, key=int)]['accuracy/top1']:.2f} |")
PYTHON
