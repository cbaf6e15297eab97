# One teacher, a ResNet-50.
# Train it first, then the student, then test and export it:
#   python tools/train.py configs/centernet/centernet_r50_voc.py
#   python tools/train.py configs/multi_teacher/centernet_st_r18_voc.py
#   python tools/test.py configs/multi_teacher/centernet_st_r18_voc.py \
#       work_dirs/centernet_st_r18_voc/epoch_100.pth
#   python tools/export.py configs/multi_teacher/centernet_st_r18_voc.py \
#       work_dirs/centernet_st_r18_voc/epoch_100.pth \
#       --out centernet_st_r18_voc.onnx
_base_ = [
    '../centernet/centernet_r18_voc.py', '../_base_/teachers/voc.py',
    '../_base_/distillation/joint.py'
]

teachers = dict(_delete_=True, resnet50=_base_.teachers.resnet50)
