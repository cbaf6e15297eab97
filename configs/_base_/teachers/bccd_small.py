# A narrow ResNet-50 and a narrow Hourglass on BCCD at 160 px, each trained with the
# --work-dir that its checkpoint has here.
teachers = dict(
    resnet50=dict(
        config='configs/bccd_small/centernet_r50.py',
        checkpoint='work_dirs/bccd_small/centernet_r50/epoch_72.pth'),
    hourglass=dict(
        config='configs/bccd_small/centernet_hourglass.py',
        checkpoint='work_dirs/bccd_small/centernet_hourglass/epoch_24.pth'))
teacher_cache = dict(folder='work_dirs/bccd_small/cache', views=24)  # one for each epoch
