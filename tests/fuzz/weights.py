"""Checkpoints and initial weights."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import ClassVar

import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import nn

from fuzz.judge import CANARY
from fuzz.mutations import DEEP, damaged_bytes, damaged_tree
from mmkd.checkpoint_checks import WEIGHTS_HASH, weights_hash
from mmkd.checkpoints import load_weights
from mmkd.detection.initial_weights import fetch_initial_weights
from mmkd.registry import MODELS


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Asks(Runs):
    """Calls a shell when it is unpickled."""

    def __reduce__(self):
        import os
        return os.system, (f'touch {self.path}',)


class Looks(Runs):
    """Gets at a method that nobody allowed when it is unpickled."""

    def __reduce__(self):
        return getattr, (nn.Module, 'forward')


def saved(content, legacy=False, protocol=2):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return file.getvalue()


def hostile(rng, state, mark):
    """Return a checkpoint that runs code where it is unpickled without care."""
    evil = rng.choice([Runs, Asks, Looks])(mark)
    content = rng.choice([evil, [evil], dict(state_dict=state, meta=evil), dict(state_dict=evil),
                          dict(state_dict={**state, 'x': evil}), (evil,)])
    how = rng.choice(['zip', 'legacy', 'pickle', 'swapped'])
    if how == 'pickle':
        return rng.choice([
            pickle.dumps(content if isinstance(content, list | tuple) else evil, rng.randrange(6)),
            f"cos\nsystem\n(S'touch {mark}'\ntR.".encode(),
            f"(S'touch {mark}'\nios\nsystem\n.".encode()])
    if how == 'swapped':  # plain weights whose description is another
        file = io.BytesIO()
        with (zipfile.ZipFile(io.BytesIO(saved(state))) as old,
              zipfile.ZipFile(file, 'w') as new):
            for entry in old.namelist():
                new.writestr(entry, pickle.dumps(evil, rng.randrange(6))
                             if entry.endswith('data.pkl') else old.read(entry))
        return file.getvalue()
    return saved(content, how == 'legacy', rng.choice([2, 2, 3, 4]))


def odd_tensors():
    dense = torch.ones(4, 3)
    return [dense.to_sparse(), dense.to_sparse_csr(), dense.to(torch.complex64), dense.half(),
            dense.bfloat16(), dense.long(), dense.bool(), torch.empty(4, 3, device='meta'),
            torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8), dense[:0], dense[0, 0],
            dense.expand(5, 4, 3), nn.Parameter(dense), dense.t(), dense.to(torch.float8_e5m2)]


class Weights:
    """What kinds of weights files share: templates, and whether what was read is right."""

    def __init__(self, folder):
        torch.manual_seed(0)
        self.state = {name: value + torch.rand(value.shape) if value.is_floating_point() else value
                      for name, value in self.network().state_dict().items()}
        history = HistoryBuffer([1.0, 2.0], [1, 1])
        self.ours = dict(meta={'epoch': 1, 'iter': 4, 'dataset_meta': dict(classes=('a', 'b')),
                               WEIGHTS_HASH: weights_hash(self.state)},
                         state_dict=self.state, message_hub=dict(log_scalars=dict(loss=history)),
                         optimizer=dict(state={0: dict(step=3)}, param_groups=[dict(lr=0.1)]))
        self.contents = [self.ours, self.ours, self.state, dict(model=self.state),
                         dict(state_dict={f'module.{k}': v for k, v in self.state.items()})]

    def damage(self, rng, root):
        self.path = root / 'weights.pth'
        legacy = rng.random() < 0.3
        kind = rng.choice(['bytes'] * 5 + ['tree'] * 4 + ['hostile', 'hostile', 'place'])
        content = rng.choice(self.contents)
        # Other weights that are as good as these, unless a hash says which they were.
        self.must_equal = kind == 'bytes' or content is self.ours
        if kind == 'bytes':
            self.path.write_bytes(damaged_bytes(rng, saved(content, legacy)))
        elif kind == 'tree':
            tree = damaged_tree(rng, content, odd_tensors())
            if DEEP in repr(tree)[:10**6]:
                tree = [tree]
            if rng.random() < 0.2:
                tree = {rng.choice([3, None, (1, 2), 1.5, b'x']): torch.ones(3), **tree} \
                    if isinstance(tree, dict) else tree
            self.must_equal &= WEIGHTS_HASH in str(tree)
            self.path.write_bytes(saved(tree, legacy))
        elif kind == 'hostile':
            self.path.write_bytes(hostile(rng, self.state, root.parent / CANARY))
        elif rng.random() < 0.5:
            self.path.mkdir()
        else:
            self.path = root / ('x' * 5000 + '.pth')

    def read(self, root):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            found = self.loaded()
        told = any('no checksums' in str(one.message) for one in said)
        assert found.keys() == self.state.keys()
        for name, value in found.items():
            assert value.shape == self.state[name].shape and value.layout == torch.strided
            assert told or not self.must_equal or torch.equal(value, self.state[name]), name


class Checkpoint(Weights):
    """Checkpoints of students and teachers."""

    name = 'checkpoints'

    def network(self):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))

    def loaded(self):
        network = self.network()
        load_weights(network, self.path)
        return network.state_dict()


class Initial(Weights):
    """Weights that a backbone begins with."""

    name = 'initial weights'
    backbone: ClassVar = dict(type='ResNet', depth=18, num_stages=1, strides=(1,), dilations=(1,),
                              out_indices=(0,), base_channels=4)

    def network(self):
        return MODELS.build(dict(self.backbone))

    def loaded(self):
        cfg = Config(dict(model=dict(type='CenterNet', backbone=dict(
            self.backbone, init_cfg=dict(type='Pretrained', checkpoint=str(self.path))))))
        fetch_initial_weights(cfg)
        network = MODELS.build(cfg.model.backbone)
        network.init_weights()
        return network.state_dict()
