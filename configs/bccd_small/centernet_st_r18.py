# python tools/train.py configs/bccd_small/centernet_st_r18.py
# Needs its teachers, trained with --work-dir as named below.
_base_ = ['./centernet_r18.py', '../_base_/distillation/joint.py']

teachers = dict(
    hourglass=dict(
        config='configs/bccd_small/centernet_hourglass.py',
        checkpoint='work_dirs/bccd_small/centernet_hourglass/epoch_24.pth'))
teacher_cache = dict(folder='work_dirs/bccd_small/cache', views=24)  # one for each epoch
distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
