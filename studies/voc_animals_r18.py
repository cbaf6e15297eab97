# python tools/study.py studies/voc_animals_r18.py
# Photographs of people and animals: what does a ResNet-18 gain from two teachers?
# As voc_animals_mobilenetv2.py, with another student.
_base_ = './voc_animals_mobilenetv2.py'

baseline = dict(title='ResNet-18, alone', config='configs/voc_animals/centernet_r18.py')
variants = dict(
    one_teacher=dict(config='configs/voc_animals/centernet_st_r18.py'),
    two_teachers=dict(config='configs/voc_animals/centernet_mt_r18.py'),
    source=dict(config='configs/voc_animals/centernet_mt_source_r18.py'))
