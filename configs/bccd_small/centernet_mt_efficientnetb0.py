# python tools/train.py configs/bccd_small/centernet_mt_efficientnetb0.py
_base_ = [
    './centernet_efficientnetb0.py', '../_base_/teachers/bccd_small.py',
    '../_base_/distillation/joint.py'
]

distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
