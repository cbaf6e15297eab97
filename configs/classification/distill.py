# One config for every cell: a method, a pair and a data set, each chosen by its name.
#   train a teacher, or a student alone:
#     DATA=cifar100 STUDENT=resnet32x4 python tools/train.py configs/classification/distill.py
#   distil:
#     DATA=cifar100 METHOD=dkd TEACHER=resnet32x4 STUDENT=resnet8x4 \
#         python tools/train.py configs/classification/distill.py
#   test:
#     DATA=cifar100 STUDENT=resnet8x4 python tools/test.py configs/classification/distill.py \
#         work_dirs/cifar100/dkd_resnet32x4_resnet8x4/epoch_240.pth
# METHOD, DATA: a file of methods/ and of ../_base_/classification/. STUDENT, TEACHER: a network of
# mmkd.classification.networks; several teachers are separated by commas. Images: DATA_ROOT.
# A teacher's weights: where the first command puts them, or TEACHER_CHECKPOINT (also as
# RepDistiller, mdistiller, torchvision and timm publish them).
_base_ = [
    '../_base_/classification/{{$DATA:cifar100}}.py',
    './methods/{{$METHOD:ce}}.py',
]

data = '{{$DATA:cifar100}}'
method = '{{$METHOD:ce}}'
student = '{{$STUDENT:resnet8x4}}'
teacher = '{{$TEACHER:resnet32x4}}'
teacher_names = [] if method == 'ce' else teacher.split(',')

model = dict(
    type='Classifier',
    backbone=dict(type=student),
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}})
if student.startswith(('mobilenet', 'shufflenet')) and data != 'imagenet':
    optim_wrapper = dict(optimizer=dict(lr=0.01))

last_epoch = 100 if data == 'imagenet' else 240
published = '{{$TEACHER_CHECKPOINT:none}}'
if published != 'none' and len(teacher_names) > 1:
    raise ValueError('TEACHER_CHECKPOINT is the file of one teacher: for several use '
                     '--cfg-options teachers.NAME.checkpoint=FILE')
teachers = {
    name: dict(
        model=dict(
            type='Classifier',
            backbone=dict(type=name),
            num_classes={{_base_.num_classes}},
            data_preprocessor={{_base_.data_preprocessor}}),
        checkpoint=(f'work_dirs/{data}/ce_{name}/epoch_{last_epoch}.pth'
                    if published == 'none' else published))
    for name in teacher_names
}
work_dir = '/'.join(['work_dirs', data, '_'.join([method, *teacher_names, student])])
