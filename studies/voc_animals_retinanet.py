# python tools/study.py studies/voc_animals_retinanet.py
# Photographs of people and animals: does a narrow RetinaNet learn from the features of a wide one?
# Elsewhere than data/VOC_animals: VOC_ANIMALS_ROOT=/path/to/VOC_animals/ before the command.
STUDENT = 'configs/voc_animals/retinanet_r18.py'
TEACHER = ('configs/voc_animals/retinanet_r18_wide.py='
           'work_dirs/voc_animals/retinanet_r18_wide/epoch_30.pth')
CACHE = {'teacher_cache.folder': 'work_dirs/voc_animals/cache_retinanet',
         'teacher_cache.views': 8}

baseline = dict(title='RetinaNet-R18, alone', config=STUDENT)
variants = dict(
    pkd=dict(title='by PKD', config=STUDENT, teacher=TEACHER, method='pkd', options=CACHE),
    fgd=dict(title='by FGD', config=STUDENT, teacher=TEACHER, method='fgd', options=CACHE))
teachers = dict(retinanet=dict(
    config='configs/voc_animals/retinanet_r18_wide.py',
    checkpoint='work_dirs/voc_animals/retinanet_r18_wide/epoch_30.pth'))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
threshold = 2.0
