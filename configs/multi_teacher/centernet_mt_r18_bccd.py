# Two teachers, a ResNet-50 and an Hourglass-104.
# Train them first, then the student, then test and export it:
#   python tools/train.py configs/centernet/centernet_r50_bccd.py
#   python tools/train.py configs/centernet/centernet_hourglass104_bccd.py
#   python tools/train.py configs/multi_teacher/centernet_mt_r18_bccd.py
#   python tools/test.py configs/multi_teacher/centernet_mt_r18_bccd.py \
#       work_dirs/centernet_mt_r18_bccd/epoch_100.pth
#   python tools/export.py configs/multi_teacher/centernet_mt_r18_bccd.py \
#       work_dirs/centernet_mt_r18_bccd/epoch_100.pth \
#       --out centernet_mt_r18_bccd.onnx
_base_ = [
    '../centernet/centernet_r18_bccd.py', '../_base_/teachers/bccd.py',
    '../_base_/distillation/joint.py'
]
