# PASCAL VOC: trained on VOC2007 and VOC2012 trainval, tested on VOC2007 test.
# The archives are unpacked by: python tools/prepare_voc.py extract DOWNLOADS --out data/VOCdevkit
# Another place: --data-root /data/VOCdevkit
_base_ = './voc_layout.py'
classes = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
           'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
           'train', 'tvmonitor')
num_classes = len(classes)
data_root = '{{$VOC_ROOT:data/VOCdevkit/}}'

train_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['dataset_type'],  # VOC2007 and VOC2012
        datasets=[
            dict(
                _base_.train_dataloader.dataset,
                data_root=data_root,
                data_prefix=dict(sub_data_root=f'{year}/'),
                ann_file=f'{year}/ImageSets/Main/trainval.txt',
                metainfo=dict(classes=classes)) for year in ('VOC2007', 'VOC2012')
        ]))
val_dataloader = test_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(sub_data_root='VOC2007/'),
        ann_file='VOC2007/ImageSets/Main/test.txt',
        metainfo=dict(classes=classes)))
