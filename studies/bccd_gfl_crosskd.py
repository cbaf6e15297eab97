# python tools/study.py studies/bccd_gfl_crosskd.py
# As bccd_gfl.py by CrossKD, which hands the student's features to the teacher's head: so the
# student's neck and head are as wide as the teacher's, alone and taught.
_base_ = './bccd_gfl.py'
WIDE = {'model.neck.out_channels': 96, 'model.bbox_head.in_channels': 96,
        'model.bbox_head.feat_channels': 96}

baseline = dict(title='GFL-R18 with a wide head, alone', options=WIDE)
BY_CROSSKD = dict(
    config='configs/bccd_small/gfl_r18.py', method='crosskd',
    teacher='configs/bccd_small/gfl_r50.py=work_dirs/bccd_small/gfl_r50/epoch_72.pth')
# The heads have two convolutions before the last one: the teacher's go on after the first.
TAUGHT = {**WIDE, 'terms.crosskd.convs': 1}

variants = dict(
    _delete_=True,
    crosskd=dict(BY_CROSSKD, title='by CrossKD', options=TAUGHT),
    # As LD it drowns the student's own loss: in the first step its gradient is 67 times as large.
    crosskd_share=dict(BY_CROSSKD, title='by CrossKD, 30 % of the gradient',
                       options={**TAUGHT, 'terms.crosskd.gradient_share': 0.3}))
