"""Images and what is said of them: VOC XML and lists, COCO JSON, YOLO text."""

import json
import math
import os
import shutil
from contextlib import suppress

import cv2
import numpy as np

from fuzz.mutations import as_json, damaged_bytes, damaged_text, damaged_tree
from mmkd.detection.data import VOCLayoutDataset, check_voc
from mmkd.engine.data_root import use_data
from mmkd.errors import UserError
from mmkd.images import load_image, read_image
from mmkd.own_data.check import check, settle_classes
from mmkd.own_data.folder import Folder
from mmkd.own_data.layouts import recognise
from mmkd.own_data.lists import write_lists
from mmkd.own_data.photos import Complaints
from mmkd.own_data.splits import assign_splits

CLASSES = ('cat', 'dog')
SIZE = 40, 30
ENCODINGS = ('utf-8', 'latin-1', 'utf-16', 'klingon', 'utf-7', 'cp037', 'idna', 'rot13', '', 'hex',
             'x' * 300, 'utf-8\x00', 'undefined', 'gb18030')


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def encoded(suffix, seed=0, options=()):
    return cv2.imencode(suffix, noise(seed), options)[1].tobytes()


def look_through(root, out):
    """Do what `mmkd new` does with a folder, and check what it would learn from."""
    complaints = Complaints()
    found = recognise(Folder.of(root), complaints)
    check(found, root, complaints)
    classes = settle_classes(found, None, complaints)
    assign_splits(found, complaints)
    assert all(len(line.splitlines()) == 1 for line in complaints.lines())
    for photo in found.photos:
        assert photo.size == SIZE and photo.split in ('train', 'val', 'test')
        for box in photo.boxes:
            x1, y1, x2, y2 = box.corners
            assert 0 <= x1 < x2 <= SIZE[0] and 0 <= y1 < y2 <= SIZE[1] and box.name in classes
    write_lists(found, root, out, classes)


class Voc:
    """Annotations and lists of VOC layout."""

    name = 'VOC XML and lists'

    def __init__(self, folder):
        self.names = [f'{i:03}' for i in range(5)]
        self.images = {name: encoded('.png', i) for i, name in enumerate(self.names)}

    def xml(self, number):
        return ('<?xml version="1.0" encoding="utf-8"?>\n<annotation>\n<size>\n<width>40</width>\n'
                '<height>30</height>\n<depth>3</depth>\n</size>\n' + ''.join(
                    f'<object>\n<name>{name}</name>\n<difficult>0</difficult>\n<bndbox>\n'
                    f'<xmin>{number + 2}</xmin>\n<ymin>3</ymin>\n<xmax>{number + 15}.5</xmax>\n'
                    '<ymax>21</ymax>\n</bndbox>\n</object>\n' for name in CLASSES)
                + '</annotation>\n')

    def damage(self, rng, root):
        for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
            (root / folder).mkdir(parents=True)
        for number, name in enumerate(self.names):
            (root / f'JPEGImages/{name}.png').write_bytes(self.images[name])
            (root / f'Annotations/{name}.xml').write_text(self.xml(number))
        lists = root / 'ImageSets/Main/train.txt'
        lists.write_text('\n'.join(self.names) + '\n')
        target = root / f'Annotations/{rng.choice(self.names)}.xml'
        kind = rng.choice(['xml', 'xml', 'xml', 'encoding', 'list', 'list', 'place'])
        if kind == 'xml':
            target.write_bytes(damaged_text(rng, self.xml(3)))
        elif kind == 'encoding':
            text = self.xml(3).replace('utf-8', rng.choice(ENCODINGS))
            target.write_bytes(text.encode(rng.choice(['utf-8', 'utf-16', 'cp037'])))
        elif kind == 'list':
            lists.write_bytes(damaged_text(rng, lists.read_text()))
        else:
            what = rng.choice([target, lists, root / f'JPEGImages/{rng.choice(self.names)}.png'])
            what.unlink()
            if rng.random() < 0.7:
                what.mkdir()
        self.test_mode = rng.random() < 0.5

    def read(self, root):
        str([str(report) for report in check_voc(root, CLASSES)])
        with suppress(UserError):  # what follows says so, too, or is content with less
            look_through(root, root / 'lists')
        data = VOCLayoutDataset(data_root=f'{root}/', ann_file='ImageSets/Main/train.txt',
                                metainfo=dict(classes=CLASSES), test_mode=self.test_mode,
                                pipeline=[dict(type='LoadImage')])
        for number in range(len(data)):
            for instance in data[number]['instances']:
                x1, y1, x2, y2 = instance['bbox']
                assert 0 <= x1 < x2 < SIZE[0] and 0 <= y1 < y2 < SIZE[1]
                assert instance['bbox_label'] in (0, 1) and instance['ignore_flag'] in (0, 1)


class Image:
    """Image files."""

    name = 'images'

    def __init__(self, folder):
        self.files = {
            'a.png': encoded('.png'), 'b.jpg': encoded('.jpg'), 'f.bmp': encoded('.bmp'),
            'c.jpg': encoded('.jpg', options=[cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
            'd.png': cv2.imencode('.png', noise(0)[..., 0])[1].tobytes(),
            'e.png': cv2.imencode('.png', noise(0).astype(np.uint16) * 257)[1].tobytes(),
            'g.webp': encoded('.webp'), 'h.tif': encoded('.tif')}

    def damage(self, rng, root):
        name = rng.choice(list(self.files))
        self.path = root / name
        kind = rng.choice(['bytes'] * 20 + ['folder', 'long', 'null'])
        if kind == 'bytes':
            self.path.write_bytes(damaged_bytes(rng, self.files[name]))
        elif kind == 'folder':
            self.path.mkdir()
        else:
            self.path = root / ('x' * 5000 if kind == 'long' else 'a\0.png')

    def read(self, root):
        results = []
        for read in (load_image, read_image):
            try:
                results.append(read(str(self.path)))
            except UserError as error:
                results.append(error)
        ours, theirs = results
        assert isinstance(ours, UserError) == isinstance(theirs, UserError)
        if isinstance(ours, UserError):
            raise ours
        assert ours.dtype == np.uint8 and ours.ndim == 3 and ours.shape[2] == 3 and ours.size
        assert np.array_equal(ours, theirs)


class Coco:
    """COCO JSON: what `mmkd new` and `--data` make of it."""

    name = 'COCO JSON'

    def __init__(self, folder):
        self.images = [encoded('.png', i) for i in range(5)]
        self.spec = dict(
            info={}, images=[dict(id=i, file_name=f'{i}.png', width=40, height=30)
                             for i in range(5)],
            annotations=[dict(id=i + 1, image_id=i % 5, category_id=1 + i % 2, iscrowd=0,
                              bbox=[i, 2, 12.5, 9], area=112.5) for i in range(10)],
            categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])

    def damage(self, rng, root):
        (root / 'annotations').mkdir()
        (root / 'images').mkdir()
        for i, image in enumerate(self.images):
            (root / f'images/{i}.png').write_bytes(image)
        for split in ('train', 'val'):
            (root / f'annotations/instances_{split}.json').write_text(json.dumps(self.spec))
        target = root / 'annotations/instances_train.json'
        kind = rng.choice(['tree', 'tree', 'tree', 'tree', 'text', 'bytes', 'folder'])
        if kind == 'tree':
            target.write_text(as_json(damaged_tree(rng, self.spec)))
        elif kind == 'folder':
            target.unlink()
            target.mkdir()
        else:
            text = json.dumps(self.spec, indent=1)
            target.write_bytes(damaged_text(rng, text) if kind == 'text' else
                               damaged_bytes(rng, text.encode()))

    def read(self, root):
        from mmengine.config import Config
        loader = dict(dataset=dict(pipeline=[]))
        cfg = Config(dict(model=dict(num_classes=3), **{
            f'{split}_dataloader': loader for split in ('train', 'val', 'test')}))
        with suppress(UserError):  # of another mind than the following
            use_data(cfg, root)
            classes = cfg.train_dataloader.dataset.metainfo.classes
            assert cfg.model.num_classes == len(classes)
            assert all(isinstance(name, str) for name in classes)
        look_through(root, root / 'lists')
        for split in ('train', 'val', 'test'):
            for one in json.loads((root / f'lists/annotations/instances_{split}.json').read_text()
                                  )['annotations']:
                assert all(math.isfinite(value) for value in one['bbox'])


class Yolo:
    """YOLO text and its YAML."""

    name = 'YOLO text'

    def __init__(self, folder):
        self.images = [encoded('.png', i) for i in range(5)]
        self.labels = [f'0 0.5 0.5 0.{i + 2} 0.3\n1 0.4 0.4 0.25 0.5\n' for i in range(5)]
        self.yaml = "path: .\ntrain: images\nval: images\nnc: 2\nnames:\n  0: cat\n  1: dog\n"

    def damage(self, rng, root):
        for folder in ('images', 'labels'):
            (root / folder).mkdir()
        for i, image in enumerate(self.images):
            (root / f'images/{i}.png').write_bytes(image)
            (root / f'labels/{i}.txt').write_text(self.labels[i])
        (root / 'data.yaml').write_text(self.yaml)
        if rng.random() < 0.5:
            (root / f'labels/{rng.randrange(5)}.txt').write_bytes(
                damaged_text(rng, self.labels[2]))
        elif rng.random() < 0.7:
            (root / 'data.yaml').write_bytes(damaged_text(rng, self.yaml))
        else:
            names = rng.choice([
                '{0: cat, 100000000000: dog}', '[cat, [dog, [a]]]', '5', 'cat', '{cat: 0}',
                '{0: cat, x: dog}', '{? [1] : cat}', '[2020-99-99, dog]', '[1e999, dog]', '{}',
                '!!python/object/apply:os.system [true]', '[' * 3000, '[null, dog]',
                '[&a [x, x, x, x, x, x], &b [*a, *a, *a, *a, *a], &c [*b, *b, *b, *b, *b, *b], '
                '&d [*c, *c, *c, *c, *c, *c], &e [*d, *d, *d, *d, *d], [*e, *e, *e, *e, *e, *e]]'])
            (root / 'data.yaml').write_text(self.yaml.partition('names')[0] + f'names: {names}\n')

    def read(self, root):
        look_through(root, root / 'lists')
        shutil.rmtree(root / 'lists')
        assert os.listdir(root)
