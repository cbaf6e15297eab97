# python tools/train.py configs/demo/centernet_st_r50_r18.py --data-root demo/data
# Needs the teachers that `make demo` trains.
_base_ = ['./centernet_r18.py', '../_base_/teachers/drawn.py', '../_base_/distillation/joint.py']

teachers = dict(_delete_=True, resnet50=_base_.teachers.resnet50)
distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
