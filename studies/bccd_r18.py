# python tools/study.py studies/bccd_r18.py
# Photographs of blood cells: what does a ResNet-18 from scratch gain from two teachers?
# Elsewhere than data/BCCD: BCCD_ROOT=/path/to/BCCD/ before the command.
baseline = dict(title='ResNet-18, alone', config='configs/bccd_small/centernet_r18.py')
variants = dict(
    one_teacher=dict(title='from the Hourglass',
                     config='configs/bccd_small/centernet_st_r18.py'),
    two_teachers=dict(title='from two teachers',
                      config='configs/bccd_small/centernet_mt_r18.py'),
    source=dict(title="from two, the source's recipe",
                config='configs/bccd_small/centernet_mt_source_r18.py'))
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
