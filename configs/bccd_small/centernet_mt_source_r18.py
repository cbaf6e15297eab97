# python tools/train.py configs/bccd_small/centernet_mt_source_r18.py
_base_ = [
    './centernet_r18.py', '../_base_/teachers/bccd_small.py',
    '../_base_/distillation/source.py'
]
