# python tools/study.py studies/bccd_gfl.py
# Blood cells: does a GFL-R18 learn from the head of a GFL-R50?
# Elsewhere than data/BCCD: BCCD_ROOT=/path/to/BCCD/ before the command.
STUDENT = 'configs/bccd_small/gfl_r18.py'
TEACHER = 'configs/bccd_small/gfl_r50.py=work_dirs/bccd_small/gfl_r50/epoch_72.pth'

baseline = dict(title='GFL-R18, alone', config=STUDENT)
variants = dict(
    ld=dict(title='by LD', config=STUDENT, teacher=TEACHER, method='ld'),
    # LD sums over the places of all objects. With 100 in a batch it drowns the student's own loss.
    ld_share=dict(title='by LD, 30 % of the gradient', config=STUDENT, teacher=TEACHER,
                  method='ld', options={'terms.ld.gradient_share': 0.3}),
    bckd=dict(title='by BCKD', config=STUDENT, teacher=TEACHER, method='bckd'))
teachers = dict(gfl=dict(
    config='configs/bccd_small/gfl_r50.py',
    checkpoint='work_dirs/bccd_small/gfl_r50/epoch_72.pth'))
seeds = [0, 1, 2]
metric = 'coco/bbox_mAP'  # COCO's, since the methods are about exact boxes
scale = 100
threshold = 2.0
