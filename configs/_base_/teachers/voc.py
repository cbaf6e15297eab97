# ResNet-50 and Hourglass-104 on PASCAL VOC, where their training puts them.
teachers = dict(
    resnet50=dict(
        config='configs/centernet/centernet_r50_voc.py',
        checkpoint='work_dirs/centernet_r50_voc/epoch_100.pth'),
    hourglass=dict(
        config='configs/centernet/centernet_hourglass104_voc.py',
        checkpoint='work_dirs/centernet_hourglass104_voc/epoch_100.pth'))
