# A narrow ResNet-50 and a narrow Hourglass on drawn images, where `make demo` puts them.
teachers = dict(
    resnet50=dict(
        config='configs/demo/centernet_r50.py',
        checkpoint='demo/centernet_r50/epoch_14.pth',
        precision='auto'),
    hourglass=dict(
        config='configs/demo/centernet_hourglass.py',
        checkpoint='demo/centernet_hourglass/epoch_8.pth',
        precision='auto'))
teacher_cache = dict(folder='demo/cache', views=8)  # one for each epoch
