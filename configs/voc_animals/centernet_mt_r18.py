# python tools/train.py configs/voc_animals/centernet_mt_r18.py
# Needs its teachers, trained with --work-dir as named below.
_base_ = ['./centernet_r18.py', '../_base_/distillation/joint.py']

teachers = dict(
    resnet18=dict(
        config='configs/voc_animals/centernet_r18_wide.py',
        checkpoint='work_dirs/voc_animals/centernet_r18_wide/epoch_30.pth',
        precision='bf16'),
    mobilenetv2=dict(
        config='configs/voc_animals/centernet_mobilenetv2_wide.py',
        checkpoint='work_dirs/voc_animals/centernet_mobilenetv2_wide/epoch_30.pth',
        precision='bf16'))
teacher_cache = dict(folder='work_dirs/voc_animals/cache', views=8)  # one for each epoch
