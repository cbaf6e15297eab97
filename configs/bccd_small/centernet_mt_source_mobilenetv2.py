# python tools/train.py configs/bccd_small/centernet_mt_source_mobilenetv2.py
_base_ = [
    './centernet_mobilenetv2.py', '../_base_/teachers/bccd_small.py',
    '../_base_/distillation/source.py'
]
