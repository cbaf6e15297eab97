# python tools/study.py studies/bccd_r18.py
# Photographs of blood cells: what does a ResNet-18 from scratch gain from two teachers?
# As bccd_mobilenetv2.py, with another student.
_base_ = './bccd_mobilenetv2.py'

baseline = dict(title='ResNet-18, alone', config='configs/bccd_small/centernet_r18.py')
variants = dict(
    one_teacher=dict(config='configs/bccd_small/centernet_st_r18.py'),
    two_teachers=dict(config='configs/bccd_small/centernet_mt_r18.py'),
    source=dict(config='configs/bccd_small/centernet_mt_source_r18.py'))
