# python tools/train.py configs/bccd_small/centernet_st_r18.py
# Needs the teacher, trained with --work-dir as named below.
_base_ = ['./centernet_r18.py', '../_base_/distillation/joint.py']

teachers = dict(
    resnet50=dict(
        config='configs/bccd_small/centernet_r50.py',
        checkpoint='work_dirs/bccd_small/centernet_r50/epoch_24.pth'))
