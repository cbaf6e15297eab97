# ResNet-50 and Hourglass-104 on BCCD, where their training puts them.
teachers = dict(
    resnet50=dict(
        config='configs/centernet/centernet_r50_bccd.py',
        checkpoint='work_dirs/centernet_r50_bccd/epoch_100.pth'),
    hourglass=dict(
        config='configs/centernet/centernet_hourglass104_bccd.py',
        checkpoint='work_dirs/centernet_hourglass104_bccd/epoch_100.pth'))
