"""CenterNet trains and tests on COCO-format data."""

import json
from xml.etree import ElementTree

import numpy as np
from helpers import centernet, runner, train_config

from mmkd.detection.data import DRAWN_CLASSES, draw_dataset


def _to_coco(root, split):
    images, annotations = [], []
    for i, name in enumerate((root / f'ImageSets/Main/{split}.txt').read_text().split()):
        images.append(dict(id=i, file_name=f'{name}.jpg', width=64, height=64))
        for node in ElementTree.parse(root / f'Annotations/{name}.xml').findall('object'):
            x1, y1, x2, y2 = (int(node.find(f'bndbox/{tag}').text)
                              for tag in ('xmin', 'ymin', 'xmax', 'ymax'))
            box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
            annotations.append(dict(
                id=len(annotations) + 1, image_id=i, bbox=box, area=box[2] * box[3], iscrowd=0,
                category_id=DRAWN_CLASSES.index(node.find('name').text)))
    categories = [dict(id=i, name=name) for i, name in enumerate(DRAWN_CLASSES)]
    path = root / f'{split}.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations,
                                    categories=categories)))
    return str(path)


def test_train_and_test_on_coco_format(tmp_path):
    root = draw_dataset(tmp_path / 'drawn', splits=dict(train=4, test=3), image_size=64)

    def dataset(split):
        return dict(type='CocoDataset', ann_file=_to_coco(root, split),
                    data_prefix=dict(img=str(root / 'JPEGImages')),
                    metainfo=dict(classes=DRAWN_CLASSES), test_mode=split == 'test',
                    pipeline=[dict(type='LoadImage'),
                              dict(type='Resize', scale=(64, 64), keep_ratio=True),
                              dict(type='LoadAnnotations', with_bbox=True),
                              dict(type='PackDetInputs')])

    config = train_config(
        tmp_path / 'run', centernet(num_classes=6), iters=2, batch=2,
        test_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset('test'),
                             sampler=dict(type='DefaultSampler', shuffle=False)),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='CocoMetric', metric='bbox', ann_file=str(root / 'test.json')))
    config.train_dataloader.dataset = dataset('train')
    run = runner(config)
    run.train()
    metrics = run.test()
    assert np.isfinite(metrics['coco/bbox_mAP'])
