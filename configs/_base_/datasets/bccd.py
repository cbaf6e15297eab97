# Blood cells, https://github.com/Shenggan/BCCD_Dataset: 364 photographs, three classes.
# data/BCCD holds JPEGImages, Annotations and ImageSets/Main/{train,val,test}.txt.
# Another place: --data-root /data/BCCD
# Your own VOC-layout data: copy this file and change classes and data_root.
_base_ = './voc_layout.py'
classes = ('RBC', 'WBC', 'Platelets')
num_classes = len(classes)
data_root = '{{$BCCD_ROOT:data/BCCD/}}'

train_dataloader = val_dataloader = test_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes)))
