# Blood cells, https://github.com/Shenggan/BCCD_Dataset: 364 photographs, three classes.
# data/BCCD holds JPEGImages, Annotations and ImageSets/Main/{train,val,test}.txt.
# Another place: --data-root /data/BCCD
# Your own VOC-layout data: copy this file and change classes and data_root.
_base_ = './voc0712.py'
classes = ('RBC', 'WBC', 'Platelets')
num_classes = len(classes)
data_root = '{{$BCCD_ROOT:data/BCCD/}}'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VOCLayoutDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/train.txt',
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline={{_base_.train_pipeline}}))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VOCLayoutDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/val.txt',
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline={{_base_.test_pipeline}}))
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VOCLayoutDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/test.txt',
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline={{_base_.test_pipeline}}))
