"""Shards of caches, exported models, archives of images, configs."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import onnx
from archives import write_cifar10, write_idx, write_image
from handmade_models import metadata, save

from fuzz.judge import CANARY
from fuzz.mutations import as_json, damaged_bytes, damaged_text, damaged_tree, values
from fuzz.weights import Asks, Runs
from mmkd.classification.data import CIFAR10, SVHN, FashionMNIST, TinyImageNet
from mmkd.deploy.device.files import with_hash
from mmkd.deploy.device.runtime import Detector, open_model
from mmkd.engine.config import load_config, validate_config
from mmkd.study.plan import read_study
from mmkd.teacher_cache.shards import written_shard
from mmkd.teacher_cache.store import Contents, TeacherStore


class Shards:
    """A teacher's stored outputs: two views of five images, two shards each."""

    name = 'cache shards'
    units = ((0, 0), (0, 1), (1, 0), (1, 1))

    def __init__(self, folder):
        self.whole = folder / 'cache'
        self.arrays = np.random.default_rng(0).random((2, 5, 4, 3), np.float32)
        store = self.store(self.whole)
        store.create(Contents(dict(neck='every number, float32'), dict(neck=1),
                              dict(neck=['neck']), ['a'], [8, 8]))
        for view, shard in self.units:
            self.write(store, view, shard)

    def store(self, folder):
        return TeacherStore(folder, dict(images=5, weights='abc', dataset=dict(a=[1])), 5, 3)

    def write(self, store, view, shard, count=None):
        path = store.path(view, shard)
        path.parent.mkdir(exist_ok=True)
        with written_shard(path, store.owner(view, shard)) as writer:
            for image in range(3 * shard, 3 * shard + (count or store.size_of(shard))):
                writer.add([self.arrays[view, image % 5]])

    def damage(self, rng, root):
        folder = root / 'cache'
        shutil.copytree(self.whole, folder)
        store = self.store(folder)
        store.load()
        unit, other = rng.choice(self.units), rng.choice(self.units)
        path = store.path(*unit)
        kind = rng.choice(['bytes'] * 3 + ['made'] * 2 + ['cut', 'swap', 'fewer', 'folder'])
        content = damaged_bytes(rng, path.read_bytes())
        count, size = rng.choice([1, 2, 4]), rng.randrange(path.stat().st_size)
        made = folder / 'made_from.json'
        if kind == 'made':
            import json
            tree = json.loads(made.read_text())
            made.write_text(as_json(damaged_tree(rng, tree))) if rng.random() < 0.6 else \
                made.write_bytes(damaged_text(rng, made.read_text()))

        def act():
            if kind == 'bytes':
                path.unlink()
                path.write_bytes(content)
            elif kind == 'cut':
                os.truncate(path, size)  # the file that is open, too
            elif kind == 'swap':
                store.path(*other).rename(root / 'x')
                if unit != other:
                    path.rename(store.path(*other))
                (root / 'x').rename(path)
            elif kind == 'fewer':
                self.write(store, *unit, count)
            elif kind == 'folder':
                path.unlink()
                path.mkdir()

        self.act, self.when = act, rng.choice(['before', 'after the check', 'after a look'])

    def read(self, root):
        if self.when == 'before':
            self.act()
        store = self.store(root / 'cache')
        store.load()
        if store.contents is None:
            return  # built anew
        missing, _ = store.missing(self.units)
        if self.when == 'after a look':
            for view, shard in self.units:
                if (view, shard) not in missing:
                    store.read(3 * shard, view)
        if self.when != 'before':
            self.act()
        for view, shard in self.units:
            if (view, shard) in missing:
                continue  # built anew
            for image in range(3 * shard, 3 * shard + store.size_of(shard)):
                found, = store.read(image, view).arrays()
                assert np.array_equal(found, self.arrays[view, image])


class Onnx:
    """Exported models."""

    name = 'ONNX files'

    def __init__(self, folder):
        self.image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
        self.models, self.expected = [], []
        for number, about in enumerate([
                metadata(), metadata(dynamic_size=True, size_divisor=4), metadata(batch=2),
                metadata(task='classification', resize_mode='stretch'),
                metadata(input_kind='image', batch=1),
                metadata(precision='float16')]):
            path = save(folder / f'{number}.onnx', about)
            self.models.append(path.read_bytes())
            self.expected.append(open_model(path)(self.image))

    def damage(self, rng, root):
        number = rng.randrange(len(self.models))
        self.wanted, content = self.expected[number], with_hash(self.models[number])
        self.path = root / 'model.onnx'
        kind = rng.choice(['bytes', 'bytes', 'entry', 'entry', 'entry', 'text', 'signs', 'place'])
        if kind == 'bytes':
            content = damaged_bytes(rng, content)
        elif kind != 'place':
            content = self.other_metadata(rng, self.models[number], kind)
            self.wanted = None
        if kind == 'place':
            self.path.mkdir()
        else:
            self.path.write_bytes(content)

    def other_metadata(self, rng, content, kind):
        model = onnx.load_from_string(content)
        entry = rng.choice(model.metadata_props)
        if kind == 'text':
            entry.value = damaged_text(rng, entry.value).decode('utf-8', 'replace')
        elif kind == 'entry':
            more = ['cat', ['a', 'b', 'c', 'd'], [[1, 2, 3]], [1, 2, 3], [0.5, 0.5, 0.5], 0, 1, 4,
                    2, 0.25, 'BGR', 'crop', 'letterbox', 'stretch', [8, 8], [16, 16], False] * 2
            more += [[8, 8, 8], [8.5, 8], [True, True], [2**40, 2**40], [9, 8], [-8, 8], 10**12,
                    [1e30] * 3, [0.0, 0.0, 0.0], ['cat'], 'int8', 'crop', 'image', 'RGB']
            entry.value = as_json(rng.choice([*values(), *more]))
            if rng.random() < 0.1:
                model.metadata_props.remove(entry)
        else:
            value = entry.value.encode()
            model = model.SerializeToString()
            place = model.rfind(value)
            return with_hash(model[:place] + b'\xff' * len(value) + model[place + len(value):])
        return with_hash(model.SerializeToString())

    def read(self, root):
        model = open_model(self.path)
        found = model(self.image)
        if self.wanted is not None:
            assert all(np.array_equal(a, b) for a, b in zip(found, self.wanted, strict=True))
        assert np.isfinite(found.scores).all() and (found.scores >= 0).all()
        assert (found.scores <= 1).all() and (found.labels >= 0).all()
        assert (found.labels < len(model.classes)).all()
        if isinstance(model, Detector):
            assert np.isfinite(found.boxes).all() and found.boxes.shape == (len(found.scores), 4)


class Archive:
    """Archives and files of data sets of classes."""

    name = 'archives'
    packers = (gzip.compress, lzma.compress, bz2.compress, bytes)

    def __init__(self, folder):
        write_cifar10(folder / 'cifar', per_batch=2)
        inside = folder / 'cifar/cifar-10-batches-py'
        self.cifar = {path.name: path.read_bytes() for path in inside.iterdir()}
        write_idx(folder / 'x.gz', np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28))
        write_idx(folder / 'y.gz', np.array([0, 9], np.uint8))
        self.fashion = [(folder / name).read_bytes() for name in ('x.gz', 'y.gz')]
        write_image(folder / 'a.png', np.zeros((8, 8, 3), np.uint8))
        self.image = (folder / 'a.png').read_bytes()
        from scipy.io import savemat
        savemat(folder / 'a.mat', dict(X=np.zeros((32, 32, 3, 2), np.uint8),
                                       y=np.array([[1], [10]], np.uint8)), do_compression=True)
        self.mat = (folder / 'a.mat').read_bytes()

    def damage(self, rng, root):
        kind = rng.choice(['cifar', 'cifar', 'pickle', 'tiny', 'tiny', 'list', 'fashion', 'svhn'])
        getattr(self, f'damage_{kind}')(rng, root)

    def tar(self, rng, files):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode='w') as tar:
            for name, content in files.items():
                about = tarfile.TarInfo(f'cifar-10-batches-py/{name}')
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
        return rng.choice(self.packers)(file.getvalue())

    def damage_cifar(self, rng, root):
        (root / CIFAR10.archive.name).write_bytes(damaged_bytes(rng, self.tar(rng, self.cifar)))
        self.dataset = lambda: CIFAR10(str(root))

    def damage_pickle(self, rng, root):
        name = rng.choice(list(self.cifar))
        evil = pickle.dumps({b'data': rng.choice([Runs, Asks])(root.parent / CANARY)},
                            rng.randrange(6))
        content = rng.choice([evil, damaged_bytes(rng, self.cifar[name])])
        (root / CIFAR10.archive.name).write_bytes(self.tar(rng, self.cifar | {name: content}))
        self.dataset = lambda: CIFAR10(str(root), rng.choice(['train', 'test']))

    def tiny(self, lists=b'v.png\tn1\t0\n'):
        return {'train/n0/images/a.png': self.image, 'train/n1/images/b.png': self.image,
                'val/images/v.png': self.image, 'val/val_annotations.txt': lists}

    def damage_tiny(self, rng, root):
        file = io.BytesIO()
        with zipfile.ZipFile(file, 'w', rng.choice([0, 8, 12, 14])) as archive:
            for name, content in self.tiny().items():
                archive.writestr(f'tiny-imagenet-200/{name}', content)
            if rng.random() < 0.3:
                mark = root.parent / CANARY
                archive.writestr(rng.choice([f'../{CANARY}', f'../../{CANARY}', str(mark)]), b'x')
        content = file.getvalue()
        (root / TinyImageNet.archive.name).write_bytes(
            content if rng.random() < 0.1 else damaged_bytes(rng, content))
        self.dataset = lambda: TinyImageNet(str(root), rng.choice(['train', 'test']))

    def damage_list(self, rng, root):
        for name, content in self.tiny(damaged_text(rng, 'v.png\tn1\t0\nv.png\tn0\t0\n')).items():
            path = root / 'tiny-imagenet-200' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.dataset = lambda: TinyImageNet(str(root), 'test')

    def damage_fashion(self, rng, root):
        contents = list(self.fashion)
        number = rng.randrange(2)
        contents[number] = damaged_bytes(rng, contents[number])
        for name, content in zip(('images-idx3', 'labels-idx1'), contents, strict=True):
            (root / f'train-{name}-ubyte.gz').write_bytes(content)
        self.dataset = lambda: FashionMNIST(str(root))

    def damage_svhn(self, rng, root):
        (root / 'train_32x32.mat').write_bytes(damaged_bytes(rng, self.mat))
        self.dataset = lambda: SVHN(str(root))

    def read(self, root):
        data = self.dataset()
        assert len(data.images) == len(data.labels) > 0 and data.images.shape[1] == 3
        assert data.labels.min() >= 0 and data.labels.max() < len(data.metainfo['classes'])


CONFIG = """default_scope = 'mmkd'
model = dict(
    type='CenterNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[1, 1, 1]),
    backbone=dict(type='ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint='a.pth')),
    neck=dict(type='CTResNetNeck', in_channels=512, num_deconv_filters=(8, 8, 8)),
    bbox_head=dict(type='CenterNetHead', num_classes=2, in_channels=8, feat_channels=8))
teachers = dict(big=dict(config='big.py', checkpoint='big.pth', weight=1.0))
terms = dict(
    heatmap=dict(type='CenterNetTerm', map='heatmap', loss=dict(type='SoftFocalLoss')),
    feature=dict(type='Term', tap='neck', loss=dict(type='PKDLoss'), weight=2))
distill_weights = dict(heatmap=1.0, feature=50)
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='VOCLayoutDataset', data_root='data/', metainfo=dict(classes=('a', 'b')),
                 pipeline=[dict(type='LoadImage'), dict(type='PackDetInputs')]))
val_dataloader = train_dataloader
val_evaluator = dict(type='VOCMeanAPMetric')
val_cfg = dict(type='ValLoop')
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
param_scheduler = [dict(type='MultiStepLR', milestones=[6], end=8, by_epoch=True)]
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook', interval=1))
custom_hooks = [dict(type='DistillationHook')]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
"""
STUDY = """baseline = dict(title='alone', config='a.py')
variants = dict(
    both=dict(title='both', config='b.py', options={'distill_weights.wh': 0}, teacher=['x', 'y']))
teachers = dict(big=dict(config='big.py', checkpoint='big.pth'))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
split = 'test'
threshold = 2.0
may_differ = ['batch']
picture = 'both'
"""


class Configs:
    """Configs, studies and options of the command line."""

    name = 'configs'

    def __init__(self, folder):
        self.trees = []
        for text in (CONFIG, STUDY):
            tree = {}
            exec(text, tree)
            tree.pop('__builtins__')
            self.trees.append(tree)

    def damage(self, rng, root):
        self.path, self.options = root / 'config.py', {}
        self.is_study = rng.random() < 0.3
        text = STUDY if self.is_study else CONFIG
        kind = rng.choice(['text', 'tree', 'tree', 'tree', 'options', 'place'])
        if kind == 'text':
            self.path.write_bytes(damaged_text(rng, text))
        elif kind == 'tree':
            tree = damaged_tree(rng, self.trees[self.is_study])
            lines = [f'{name} = {value!r}'.replace('nan', "float('nan')").replace(
                'inf}', "float('inf')}") for name, value in tree.items()]
            self.path.write_text('\n'.join(lines), errors='replace')
        elif kind == 'options':
            self.path.write_text(text)
            place = rng.choice(['model', 'model.backbone.depth', 'train_dataloader.batch_size',
                                'custom_hooks', 'custom_hooks.0', 'custom_hooks.9.x', 'terms', 'x',
                                'visualizer', 'vis_backends', '', '.', 'model..x', 'train_cfg',
                                'param_scheduler.0', 'default_hooks.checkpoint',
                                'val_dataloader.dataset'])
            self.options = {place: rng.choice(values())}
        elif rng.random() < 0.5:
            self.path.mkdir()
        else:
            self.path = root / ('x' * 5000 + '.py')

    def read(self, root):
        if self.is_study:
            study = read_study(self.path)
            assert study.cells[0].name == 'baseline'
        else:
            validate_config(load_config(self.path, self.options))
