# python tools/study.py studies/bccd_two_kinds.py
# Blood cells: does a CenterNet-R18 learn from a RetinaNet and a CenterNet at once? From both it
# learns features (PKD), from the CenterNet its maps as well (the recommended recipe).
# Elsewhere than data/BCCD: BCCD_ROOT=/path/to/BCCD/ before the command.
STUDENT = 'configs/bccd_small/centernet_r18.py'
RETINANET = 'configs/bccd_small/retinanet_r50.py=work_dirs/bccd_small/retinanet_r50/epoch_72.pth'
HOURGLASS = ('configs/bccd_small/centernet_hourglass.py='
             'work_dirs/bccd_small/centernet_hourglass/epoch_24.pth')

baseline = dict(title='CenterNet-R18, alone', config=STUDENT)
variants = dict(
    retinanet=dict(title='from a RetinaNet', config=STUDENT, teacher=RETINANET, method='pkd'),
    centernet=dict(title='from a CenterNet', config=STUDENT, teacher=HOURGLASS, method='joint',
                   options={'distill_weights.feature': 50}),
    both=dict(title='from both', config=STUDENT, teacher=[RETINANET, HOURGLASS],
              method='pkd,joint', options={'distill_weights.feature': 50}))
teachers = dict(
    retinanet=dict(config='configs/bccd_small/retinanet_r50.py',
                   checkpoint='work_dirs/bccd_small/retinanet_r50/epoch_72.pth'),
    hourglass=dict(config='configs/bccd_small/centernet_hourglass.py',
                   checkpoint='work_dirs/bccd_small/centernet_hourglass/epoch_24.pth'))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
threshold = 3.0
