# python tools/train.py configs/voc_animals/centernet_mt_mobilenetv2.py
_base_ = [
    './centernet_mobilenetv2.py', '../_base_/teachers/voc_animals.py',
    '../_base_/distillation/joint.py'
]
