# python tools/train.py configs/bccd_small/centernet_st_r18.py
_base_ = [
    './centernet_r18.py', '../_base_/teachers/bccd_small.py',
    '../_base_/distillation/joint.py'
]

teachers = dict(_delete_=True, hourglass=_base_.teachers.hourglass)
distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
