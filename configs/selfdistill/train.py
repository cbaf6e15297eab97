# Self-distillation: one network is its own teacher. A method, a network and a data set, by name:
#   DATA=cifar100 METHOD=scd STUDENT=resnet32 python tools/train.py configs/selfdistill/train.py
# METHOD: a file of methods/. DATA: a file of ../_base_/classification/. STUDENT: a network of
# mmkd.classification.networks. Images: DATA_ROOT. The checkpoint holds the plain network:
#   DATA=cifar100 STUDENT=resnet32 python tools/test.py configs/classification/distill.py \
#       work_dirs/cifar100/scd_resnet32/epoch_240.pth
_base_ = './methods/{{$METHOD:scd}}.py'

data = '{{$DATA:cifar100}}'
student = '{{$STUDENT:resnet32}}'

model = dict(
    type='Classifier',
    backbone=dict(type=student),
    num_classes={{_base_.num_classes}},
    data_preprocessor={{_base_.data_preprocessor}})
if student.startswith(('mobilenet', 'shufflenet')) and data != 'imagenet':
    optim_wrapper = dict(optimizer=dict(lr=0.01))

work_dir = f'work_dirs/{data}/{{$METHOD:scd}}_{student}'
