# Networks that train together and learn from one another, by one config:
#     DATA=cifar100 METHOD=mcl MEMBERS=resnet32,resnet32 \
#         python tools/train.py configs/online/train.py
# test all of them and their ensemble:
#     DATA=cifar100 MEMBERS=resnet32,resnet32 python tools/test.py configs/online/train.py \
#         work_dirs/cifar100/online_mcl_resnet32_resnet32/epoch_300.pth
# test one of them, as any classifier (NETWORK_1.pth, NETWORK_2.pth, ... lie beside it):
#     DATA=cifar100 STUDENT=resnet32 python tools/test.py configs/classification/distill.py \
#         work_dirs/cifar100/online_mcl_resnet32_resnet32/resnet32_1.pth
# METHOD: a file of methods/, which names its hooks and whatever else it needs; it begins with
# _base_ = '../../_base_/classification/cifar_300e.py', the data set and the recipe, so that it can
# override both. MEMBERS: networks of mmkd.classification.networks, equal or different, separated
# by commas; the same ones as METHOD=ce are what a method is compared with. Images: DATA_ROOT.
_base_ = './methods/{{$METHOD:ce}}.py'

networks = '{{$MEMBERS:resnet32,resnet32}}'
model = dict(
    type='Cohort',
    members={
        f'{network}_{number}': dict(
            type='Classifier', backbone=dict(type=network), num_classes={{_base_.num_classes}})
        for number, network in enumerate(networks.split(','), 1)
    },
    data_preprocessor={{_base_.data_preprocessor}})

val_evaluator = dict(type='CohortAccuracy')
test_evaluator = dict(type='CohortAccuracy')
default_hooks = dict(member_checkpoints=dict(type='MemberCheckpointHook'))
work_dir = '_'.join([
    'work_dirs/{{$DATA:cifar100}}/online', '{{$METHOD:ce}}', *networks.split(',')])
