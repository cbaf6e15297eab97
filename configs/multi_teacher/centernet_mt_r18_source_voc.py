# python tools/train.py configs/multi_teacher/centernet_mt_r18_source_voc.py
# As configs/centernet_mt_r18.py, with the recipe that is closest to the source.
_base_ = [
    '../centernet/centernet_r18_voc.py', '../_base_/teachers/voc.py',
    '../_base_/distillation/source.py'
]
