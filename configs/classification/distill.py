# One config for every cell: a method, a pair and a data set, each chosen by its name.
#   train a teacher, or a student alone:
#     mmkd train classifier --data cifar100 --student resnet32x4
#   distil (the same: python tools/train.py configs/classification/distill.py --data ...):
#     mmkd train classifier --data cifar100 --method dkd --teacher resnet32x4 --student resnet8x4
#     mmkd train classifier --data cifar100 --method foundation --student resnet8x4 \
#         --teacher timm:vit_small_patch14_dinov2=dinov2.safetensors
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

# Of `--method foundation`: a backbone alone, of timm or Hugging Face, by whose name mmkd knows it.
alone = method == 'foundation' and teacher.startswith(('timm:', 'hf:'))
if alone:
    terms = dict(foundation=dict(teacher_tap='features'))
    checkpoints = {
        entry.partition('=')[0].rstrip('/').split('/')[-1].replace(':', '_').replace('.', '_'):
            entry.partition('=')[::2] for entry in teacher.split(',')}

last_epoch = 100 if data == 'imagenet' else 240
teachers = {
    name: dict(model=checkpoint[0], **(dict(checkpoint=checkpoint[1]) if checkpoint[1] else {}))
    if alone else dict(
        model=dict(
            type='Classifier',
            backbone=dict(type=name),
            num_classes={{_base_.num_classes}},
            data_preprocessor={{_base_.data_preprocessor}}),
        checkpoint=checkpoint or f'work_dirs/{data}/ce_{name}/epoch_{last_epoch}.pth')
    for name, checkpoint in checkpoints.items()
}
work_dir = '/'.join(['work_dirs', data, '_'.join([method, *checkpoints, student])])
