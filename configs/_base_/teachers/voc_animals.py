# ResNet-18 and MobileNetV2 on VOC animals, each trained with the --work-dir that its checkpoint
# has here.
teachers = dict(
    resnet18=dict(
        config='configs/voc_animals/centernet_r18_wide.py',
        checkpoint='work_dirs/voc_animals/centernet_r18_wide/epoch_30.pth',
        precision='bf16'),
    mobilenetv2=dict(
        config='configs/voc_animals/centernet_mobilenetv2_wide.py',
        checkpoint='work_dirs/voc_animals/centernet_mobilenetv2_wide/epoch_30.pth',
        precision='bf16'))
teacher_cache = dict(folder='work_dirs/voc_animals/cache', views=8)  # one for each epoch
