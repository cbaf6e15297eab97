# One config for every cell: a method, a pair and a data set, each chosen by its name.
#   train a teacher, or a student alone:
#     mmkd train classifier --data cifar100 --student resnet32x4
#   distil (the same: python tools/train.py configs/classification/distill.py --data ...):
#     mmkd train classifier --data cifar100 --method dkd --teacher resnet32x4 --student resnet8x4
#   test:
#     mmkd test work_dirs/cifar100/dkd_resnet32x4_resnet8x4/config.py \
#         work_dirs/cifar100/dkd_resnet32x4_resnet8x4/epoch_240.pth
# --method, --data: a file of methods/ and of ../_base_/classification/. --student, --teacher: a
# network of mmkd.classification.networks; several teachers by several --teacher. Images:
# --data-root. A teacher's weights: where the first command puts them, or --teacher NAME=CHECKPOINT
# (also as RepDistiller, mdistiller, torchvision and timm publish them).
_base_ = [
    '../_base_/classification/{{$MMKD_DATA:cifar100}}.py',
    './methods/{{$MMKD_METHOD:ce}}.py',
]

data = '{{$MMKD_DATA:cifar100}}'
method = '{{$MMKD_METHOD:ce}}'
student = '{{$MMKD_STUDENT:resnet8x4}}'
teacher = '{{$MMKD_TEACHER:resnet32x4}}'
# NAME or NAME=CHECKPOINT, by commas
checkpoints = {} if method == 'ce' else dict(
    entry.partition('=')[::2] for entry in teacher.split(','))

model = dict(
    type='Classifier',
    backbone=dict(type=student),
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}})
if student.startswith(('mobilenet', 'shufflenet')) and data != 'imagenet':
    optim_wrapper = dict(optimizer=dict(lr=0.01))

last_epoch = 100 if data == 'imagenet' else 240
teachers = {
    name: dict(
        model=dict(
            type='Classifier',
            backbone=dict(type=name),
            num_classes={{_base_.num_classes}},
            data_preprocessor={{_base_.data_preprocessor}}),
        checkpoint=checkpoint or f'work_dirs/{data}/ce_{name}/epoch_{last_epoch}.pth')
    for name, checkpoint in checkpoints.items()
}
work_dir = '/'.join(['work_dirs', data, '_'.join([method, *checkpoints, student])])
