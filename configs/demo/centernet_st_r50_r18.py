# python tools/train.py configs/demo/centernet_st_r50_r18.py --data-root demo/data
# Needs the teachers that `make demo` trains.
_base_ = ['./centernet_r18.py', '../_base_/distillation/joint.py']

teachers = dict(
    resnet50=dict(
        config='configs/demo/centernet_r50.py',
        checkpoint='demo/centernet_r50/epoch_14.pth',
        precision='auto'))
teacher_cache = dict(folder='demo/cache', views=8)  # one for each epoch
distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
