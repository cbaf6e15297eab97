# python tools/study.py studies/bccd_mobilenetv2.py
# Photographs of blood cells: what does a MobileNetV2 from scratch gain from two teachers?
# Elsewhere than data/BCCD: BCCD_ROOT=/path/to/BCCD/ before the command.
baseline = dict(title='MobileNetV2, alone', config='configs/bccd_small/centernet_mobilenetv2.py')
variants = dict(
    one_teacher=dict(title='from the Hourglass',
                     config='configs/bccd_small/centernet_st_mobilenetv2.py'),
    two_teachers=dict(title='from two teachers',
                      config='configs/bccd_small/centernet_mt_mobilenetv2.py'),
    source=dict(title="from two, the source's recipe",
                config='configs/bccd_small/centernet_mt_source_mobilenetv2.py'))
teachers = dict(
    resnet50=dict(config='configs/bccd_small/centernet_r50.py',
                  checkpoint='work_dirs/bccd_small/centernet_r50/epoch_72.pth'),
    hourglass=dict(config='configs/bccd_small/centernet_hourglass.py',
                   checkpoint='work_dirs/bccd_small/centernet_hourglass/epoch_24.pth'))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
threshold = 3.0
picture = 'two_teachers'
