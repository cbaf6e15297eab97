# Self-distillation: one network is its own teacher. A method, a network and a data set, by name:
#   mmkd train selfdistill --data cifar100 --method scd --student resnet32
# or: python tools/train.py configs/selfdistill/train.py --data ...
# --method: a file of methods/. --data: a file of ../_base_/classification/. --student: a network of
# mmkd.classification.networks. Images: --data-root. The checkpoint holds the plain network:
#   mmkd test classifier work_dirs/cifar100/scd_resnet32/epoch_240.pth \
#       --data cifar100 --student resnet32
_base_ = './methods/{{$MMKD_METHOD:scd}}.py'

data = '{{$MMKD_DATA:cifar100}}'
student = '{{$MMKD_STUDENT:resnet32}}'

model = dict(
    type='Classifier',
    backbone=dict(type=student),
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}})
if student.startswith(('mobilenet', 'shufflenet')) and data != 'imagenet':
    optim_wrapper = dict(optimizer=dict(lr=0.01))

work_dir = f'work_dirs/{data}/{{$MMKD_METHOD:scd}}_{student}'
