# python tools/study.py studies/voc_animals_r18.py
# Photographs of people and animals: what does a ResNet-18 gain from two teachers?
# Elsewhere than data/VOC_animals: VOC_ANIMALS_ROOT=/path/to/VOC_animals/ before the command.
baseline = dict(title='ResNet-18, alone', config='configs/voc_animals/centernet_r18.py')
variants = dict(
    one_teacher=dict(title='from the ResNet-18',
                     config='configs/voc_animals/centernet_st_r18.py'),
    two_teachers=dict(title='from two teachers',
                      config='configs/voc_animals/centernet_mt_r18.py'),
    source=dict(title="from two, the source's recipe",
                config='configs/voc_animals/centernet_mt_source_r18.py'))
teachers = dict(
    resnet18=dict(config='configs/voc_animals/centernet_r18_wide.py',
                  checkpoint='work_dirs/voc_animals/centernet_r18_wide/epoch_30.pth'),
    mobilenetv2=dict(config='configs/voc_animals/centernet_mobilenetv2_wide.py',
                     checkpoint='work_dirs/voc_animals/centernet_mobilenetv2_wide/epoch_30.pth'))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
threshold = 3.0
picture = 'two_teachers'
