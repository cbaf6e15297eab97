# python tools/train.py configs/bccd_small/centernet_mt_mobilenetv2.py
# Needs its teachers, trained with --work-dir as named below.
_base_ = ['./centernet_mobilenetv2.py', '../_base_/distillation/joint.py']

teachers = dict(
    resnet50=dict(
        config='configs/bccd_small/centernet_r50.py',
        checkpoint='work_dirs/bccd_small/centernet_r50/epoch_72.pth'),
    hourglass=dict(
        config='configs/bccd_small/centernet_hourglass.py',
        checkpoint='work_dirs/bccd_small/centernet_hourglass/epoch_24.pth'))
teacher_cache = dict(folder='work_dirs/bccd_small/cache', views=24)  # one for each epoch
distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
