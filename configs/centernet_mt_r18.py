# Two teachers, a ResNet-50 and an Hourglass-104.
# Train them first, then the student, then test and export it:
#   python tools/train.py configs/centernet/centernet_r50_voc.py
#   python tools/train.py configs/centernet/centernet_hourglass104_voc.py
#   python tools/train.py configs/centernet_mt_r18.py
#   python tools/test.py configs/centernet_mt_r18.py \
#       work_dirs/centernet_mt_r18/epoch_100.pth
#   python tools/export.py configs/centernet_mt_r18.py \
#       work_dirs/centernet_mt_r18/epoch_100.pth --out centernet_mt_r18.onnx
_base_ = [
    './centernet/centernet_r18_voc.py', './_base_/teachers/voc.py',
    './_base_/distillation/joint.py'
]
