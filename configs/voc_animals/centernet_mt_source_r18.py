# python tools/train.py configs/voc_animals/centernet_mt_source_r18.py
_base_ = [
    './centernet_r18.py', '../_base_/teachers/voc_animals.py',
    '../_base_/distillation/source.py'
]
