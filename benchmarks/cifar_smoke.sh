#!/usr/bin/env bash
# Every method on a part of CIFAR-10, for a few epochs: that it runs and learns, not how good it is.
#
#   DATA_ROOT=data benchmarks/cifar_smoke.sh [METHOD ...]      (all of configs/classification/methods)
#
# ResNet-8 alone and from a ResNet-20 that was trained on more images. What is finished is not run
# again. Prints the table of docs/results.md.
set -euo pipefail
cd "$(dirname "$0")/.."
CONFIG=configs/classification/distill.py
OUT=work_dirs/cifar_smoke
IMAGES=5000
TEACHER_IMAGES=20000
EPOCHS=6
export DATA=cifar10 DATA_ROOT=${DATA_ROOT:-data}
if [ $# -gt 0 ]; then METHODS=("$@"); else
    mapfile -t METHODS < <(cd configs/classification/methods && ls ./*.py | xargs -n 1 basename -s .py)
fi

run() {  # run NAME IMAGES
    [ -f "$OUT/$1/epoch_$EPOCHS.pth" ] && return
    echo "$1" >&2
    mkdir -p "$OUT/$1"
    # The recipe's steps, at 150, 180 and 210 of 240 epochs, are 3, 4 and 5 of 6.
    python tools/train.py $CONFIG --work-dir "$OUT/$1" --cfg-options \
        train_dataloader.dataset.max_samples="$2" train_cfg.max_epochs=$EPOCHS \
        train_cfg.val_interval=$EPOCHS default_hooks.checkpoint.interval=$EPOCHS \
        param_scheduler.0.milestones='[3,4,5]' >"$OUT/$1/log.txt" 2>&1
}

METHOD=ce STUDENT=resnet20 run teacher_resnet20 $TEACHER_IMAGES
for method in "${METHODS[@]}"; do
    METHOD=$method STUDENT=resnet8 TEACHER=resnet20 \
        TEACHER_CHECKPOINT=$OUT/teacher_resnet20/epoch_$EPOCHS.pth run "$method" $IMAGES
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
