# python tools/study.py studies/bccd_retinanet.py
# Blood cells: does a RetinaNet-R18 learn from the features of a RetinaNet-R50?
# Elsewhere than data/BCCD: BCCD_ROOT=/path/to/BCCD/ before the command.
STUDENT = 'configs/bccd_small/retinanet_r18.py'
TEACHER = 'configs/bccd_small/retinanet_r50.py=work_dirs/bccd_small/retinanet_r50/epoch_72.pth'
CACHE = {'teacher_cache.folder': 'work_dirs/bccd_small/cache_retinanet', 'teacher_cache.views': 24}

baseline = dict(title='RetinaNet-R18, alone', config=STUDENT)
variants = dict(
    pkd=dict(title='by PKD', config=STUDENT, teacher=TEACHER, method='pkd',
            options=CACHE),
    fgd=dict(title='by FGD', config=STUDENT, teacher=TEACHER, method='fgd',
            options=CACHE))
teachers = dict(retinanet=dict(
    config='configs/bccd_small/retinanet_r50.py',
    checkpoint='work_dirs/bccd_small/retinanet_r50/epoch_72.pth'))
seeds = [0, 1, 2]
metric = 'coco/bbox_mAP'  # COCO's, since the methods are about exact boxes
scale = 100
threshold = 2.0
