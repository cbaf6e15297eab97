# python tools/train.py configs/demo/centernet_st_hourglass_r18.py --data-root demo/data
# Needs the teachers that `make demo` trains.
_base_ = ['./centernet_r18.py', '../_base_/distillation/joint.py']

teachers = dict(
    hourglass=dict(
        config='configs/demo/centernet_hourglass.py',
        checkpoint='demo/centernet_hourglass/epoch_8.pth',
        precision='auto'))
teacher_cache = dict(folder='demo/cache', views=8)  # one for each epoch
distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
