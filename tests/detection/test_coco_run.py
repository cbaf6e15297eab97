"""CenterNet trains and tests on COCO-format data."""

import numpy as np
from helpers import CLASSES, centernet, runner, train_config
from photo_folders import coco, image


def test_train_and_test_on_coco_format(tmp_path):
    def dataset(split, count):
        for i in range(count):
            image(tmp_path / split / f'{i}.jpg')
        coco(tmp_path / f'{split}.json', [(i, f'{i}.jpg') for i in range(count)],
             [(i, i % 3, [5, 4, 20, 10 + i], dict(area=200 + 20 * i, iscrowd=0))
              for i in range(count)], enumerate(CLASSES))
        return dict(type='CocoDataset', ann_file=str(tmp_path / f'{split}.json'),
                    data_prefix=dict(img=str(tmp_path / split)),
                    metainfo=dict(classes=CLASSES), test_mode=split == 'test',
                    pipeline=[dict(type='LoadImage'),
                              dict(type='Resize', scale=(64, 64), keep_ratio=True),
                              dict(type='LoadAnnotations', with_bbox=True),
                              dict(type='PackDetInputs')])

    config = train_config(
        tmp_path / 'run', centernet(), iters=2, batch=2,
        test_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset('test', 3),
                             sampler=dict(type='DefaultSampler', shuffle=False)),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='CocoMetric', metric='bbox',
                            ann_file=str(tmp_path / 'test.json')))
    config.train_dataloader.dataset = dataset('train', 4)
    run = runner(config)
    run.train()
    metrics = run.test()
    assert np.isfinite(metrics['coco/bbox_mAP'])
