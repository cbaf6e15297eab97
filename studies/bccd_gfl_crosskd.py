# python tools/study.py studies/bccd_gfl_crosskd.py
# As bccd_gfl.py by CrossKD, which hands the student's features to the teacher's head: so the
# student's neck and head are as wide as the teacher's, alone and taught.
_base_ = './bccd_gfl.py'
WIDE = {'model.neck.out_channels': 96, 'model.bbox_head.in_channels': 96,
        'model.bbox_head.feat_channels': 96}

baseline = dict(title='GFL-R18 with a wide head, alone', options=WIDE)
variants = dict(_delete_=True, crosskd=dict(
    title='by CrossKD', config='configs/bccd_small/gfl_r18.py',
    teacher='configs/bccd_small/gfl_r50.py=work_dirs/bccd_small/gfl_r50/epoch_72.pth',
    method='crosskd',
    # The heads have two convolutions before the last one: the teacher's go on after the first.
    options={**WIDE, 'terms.crosskd.convs': 1}))
