#!/usr/bin/env bash
# Every method on a part of CIFAR-10, for a few epochs: that it runs and learns, not how good it is.
#
#   DATA_ROOT=data benchmarks/cifar_smoke.sh [FAMILY/METHOD ...]     e.g. classification/kd online/mcl
#
# By default every file of configs/{classification,selfdistill,online}/methods. The network is
# ResNet-8; as a student it learns from a ResNet-20 that was trained on more images, in a cohort from
# other ResNet-8: one, and two in OKDDip and PCL, which have at least three members. What is
# finished is not run again. Prints the tables of docs/results.md.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=work_dirs/cifar_smoke
IMAGES=5000
TEACHER_IMAGES=20000
EPOCHS=6
TEACHER=$OUT/teacher/resnet20
DATA_ROOT=${DATA_ROOT:-data}
if [ $# -gt 0 ]; then METHODS=("$@"); else
    mapfile -t METHODS < <(cd configs && ls {classification,selfdistill,online}/methods/*.py |
        sed 's#/methods/#/#; s#\.py$##')
fi

run() {  # run NAME IMAGES SCHEDULE CONFIG [what to choose]
    [ -f "$OUT/$1/epoch_$EPOCHS.pth" ] && return
    echo "$1" >&2
    mkdir -p "$OUT/$1"
    python tools/train.py "${@:4}" --data cifar10 --data-root "$DATA_ROOT" --work-dir "$OUT/$1" \
        --cfg-options train_dataloader.dataset.max_samples="$2" train_cfg.max_epochs=$EPOCHS \
        train_cfg.val_interval=$EPOCHS default_hooks.checkpoint.interval=$EPOCHS \
        "param_scheduler.0.$3" >"$OUT/$1/log.txt" 2>&1
}

# The recipe's steps, at 150, 180 and 210 of 240 epochs, are 3, 4 and 5 of 6.
STEPS='milestones=[3,4,5]'
for name in "${METHODS[@]}"; do
    method=${name#*/}
    case $name in
    classification/*)
        run teacher/resnet20 $TEACHER_IMAGES $STEPS classifier --student resnet20
        taught=(--teacher "resnet20=$TEACHER/epoch_$EPOCHS.pth" --method "$method")
        [ "$method" = ce ] && taught=()
        run "$name" $IMAGES $STEPS classifier --student resnet8 "${taught[@]}" ;;
    selfdistill/*)
        run "$name" $IMAGES $STEPS selfdistill --student resnet8 --method "$method" ;;
    online/*)
        case $method in okddip | pcl) members=resnet8,resnet8,resnet8 ;; *) members=resnet8,resnet8 ;; esac
        run "$name" $IMAGES T_max=$EPOCHS online --members $members --method "$method" ;;
    esac
done

python - $OUT "${METHODS[@]}" <<'PYTHON'
import json
import sys
from pathlib import Path

out, methods = Path(sys.argv[1]), sys.argv[2:]
print('| method | top-1 | members | ensemble |\n| --- | --- | --- | --- |')
for name in methods:
    epochs = json.loads((out / name / 'accuracy.json').read_text())
    last = {key.removeprefix('accuracy/'): value
            for key, value in epochs[max(epochs, key=int)].items() if key.endswith('top1')}
    top1, ensemble = last.pop('top1'), last.pop('ensemble/top1', None)
    print(f"| {name} | {top1:.2f} | {', '.join(f'{value:.2f}' for value in last.values())} | "
          f"{'' if ensemble is None else f'{ensemble:.2f}'} |")
PYTHON
