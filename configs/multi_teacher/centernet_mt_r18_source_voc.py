# python tools/train.py configs/multi_teacher/centernet_mt_r18_source_voc.py
# As configs/centernet_mt_r18.py, with the recipe that is closest to the source.
_base_ = ['../centernet/centernet_r18_voc.py', '../_base_/distillation/source.py']

teachers = dict(
    resnet50=dict(
        config='configs/centernet/centernet_r50_voc.py',
        checkpoint='work_dirs/centernet_r50_voc/epoch_100.pth'),
    hourglass=dict(
        config='configs/centernet/centernet_hourglass104_voc.py',
        checkpoint='work_dirs/centernet_hourglass104_voc/epoch_100.pth'))
