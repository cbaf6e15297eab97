# python tools/train.py configs/voc_animals/centernet_st_efficientnetb0.py
_base_ = [
    './centernet_efficientnetb0.py', '../_base_/teachers/voc_animals.py',
    '../_base_/distillation/joint.py'
]

teachers = dict(_delete_=True, resnet18=_base_.teachers.resnet18)
teacher_cache = dict(views=16)  # one for each epoch
distill_weights = dict(feature=50)  # from scratch, see docs/recipe.md
