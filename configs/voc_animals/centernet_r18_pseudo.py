# python tools/train.py configs/voc_animals/centernet_r18_pseudo.py
# centernet_r18.py on the images that keep their labels, and on the others with those of a
# teacher: studies/voc_animals_unlabelled.py says which commands make train_10.txt and pseudo_10.
_base_ = './centernet_r18.py'

train_dataloader = dict(dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[
        dict(
            type='VOCLayoutDataset',
            data_root={{_base_.data_root}},
            data_prefix=dict(sub_data_root=folder),
            ann_file=f'{folder}ImageSets/Main/{split}.txt',
            metainfo=dict(classes={{_base_.classes}}),
            filter_cfg=dict(filter_empty_gt=True),
            pipeline={{_base_.train_pipeline}})
        for folder, split in (('', 'train_10'), ('pseudo_10/', 'train'))
    ]))
