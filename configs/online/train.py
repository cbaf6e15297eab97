# Networks that train together and learn from one another, by one config:
#     mmkd train online --data cifar100 --method mcl --members resnet32,resnet32
# (the same: python tools/train.py configs/online/train.py --data ...)
# test all of them and their ensemble:
#     mmkd test work_dirs/cifar100/online_mcl_resnet32_resnet32/config.py \
#         work_dirs/cifar100/online_mcl_resnet32_resnet32/epoch_300.pth
# test one of them, as any classifier (NETWORK_1.pth, NETWORK_2.pth, ... lie beside it):
#     mmkd test classifier work_dirs/cifar100/online_mcl_resnet32_resnet32/resnet32_1.pth \
#         --data cifar100 --student resnet32
# --method: a file of methods/, which names its hooks and whatever else it needs; it begins with
# _base_ = '../../_base_/classification/cifar_300e.py', the data set and the recipe, so that it can
# override both. --members: networks of mmkd.classification.networks, equal or different, separated
# by commas; the same ones as --method ce are what a method is compared with. Images: --data-root.
_base_ = './methods/{{$MMKD_METHOD:ce}}.py'

networks = '{{$MMKD_MEMBERS:resnet32,resnet32}}'
model = dict(
    type='Cohort',
    members={
        f'{network.replace(":", "_")}_{number}': dict(
            type='Classifier', backbone=dict(type=network), num_classes={{_base_.num_classes}})
        for number, network in enumerate(networks.split(','), 1)
    },
    data_preprocessor={{_base_.data_preprocessor}})

val_evaluator = dict(type='CohortAccuracy')
test_evaluator = dict(type='CohortAccuracy')
default_hooks = dict(member_checkpoints=dict(type='MemberCheckpointHook'))
work_dir = '_'.join([
    'work_dirs/{{$MMKD_DATA:cifar100}}/online', '{{$MMKD_METHOD:ce}}', *networks.split(',')])
