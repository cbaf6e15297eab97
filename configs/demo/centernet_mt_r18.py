# python tools/train.py configs/demo/centernet_mt_r18.py --data-root demo/data
# Needs the teachers that `make demo` trains.
_base_ = ['./centernet_r18.py', '../_base_/teachers/drawn.py', '../_base_/distillation/joint.py']

distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
