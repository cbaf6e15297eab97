"""Tiny networks and data that the tests share."""

import functools
import gc
import importlib.util
import os
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from yapf.yapflib import yapf_api

sys.path.insert(0, str(Path(__file__).parent))  # for `helpers`, also in spawned processes

# A forked child must not collect what its parent left over: onnxruntime's sessions wait there for
# threads that a child does not have.
os.register_at_fork(after_in_child=gc.disable)

# mmengine formats the whole config for every checkpoint, mmkd for every run: most of a second.
# Here, before others import it by its name.
unformatted = functools.wraps(yapf_api.FormatCode)(lambda text, **options: (text, True))
yapf_api.FormatCode = unformatted


@pytest.fixture(autouse=True)
def _scope():
    """Every test starts in mmkd's scope, as a config with `default_scope = 'mmkd'` does."""
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmkd'):
        yield


@pytest.fixture(scope='session', autouse=True)
def _one_thread():
    """A forked child can use one thread only, and sums round otherwise with two."""
    import torch
    torch.set_num_threads(1)


@pytest.fixture(scope='session', autouse=True)
def _no_waiting():
    """mmengine collects garbage for every data set, which takes most of a second, and sleeps two
    where iterations begin their data anew. A run asks git and the installation what it runs on."""
    from mmkd.engine import environment
    with pytest.MonkeyPatch.context() as patch:
        for name in ('commit', '_versions'):
            patch.setattr(environment, name, functools.cache(getattr(environment, name)))
        patch.setattr('mmengine.runner.loops.time', SimpleNamespace(sleep=lambda seconds: None))
        patch.setattr('mmengine.dataset.base_dataset.gc', SimpleNamespace(collect=lambda: None))
        yield


@pytest.fixture(autouse=True)
def _nothing_is_kept_by_name():
    """mmengine keeps these by name and second, and takes whichever name came last: in a process
    of many runs that of another test."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.visualization import Visualizer

    from mmkd.registry import VISUALIZERS
    for cls in (MMLogger, MessageHub, Visualizer, VISUALIZERS.get('DetLocalVisualizer')):
        cls._instance_dict.clear()


@pytest.fixture(params=['stub', 'real'])
def timm(request, monkeypatch):
    """Networks `resnet10t` and `vit_tiny_patch16_224`: of a stub of timm, and of timm itself.

    timm needs the torchvision that was built for the installed torch, which is not everywhere.
    """
    if request.param == 'stub':
        import timm_stub
        monkeypatch.setitem(sys.modules, 'timm', timm_stub)
        return timm_stub
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f'timm cannot be imported: {error}')
    return timm


@pytest.fixture(scope='session')
def cifar_archive(tmp_path_factory):
    """20 training and 4 test images of three classes, laid out as CIFAR-10."""
    from archives import write_cifar10
    root = tmp_path_factory.mktemp('cifar')
    write_cifar10(root, per_batch=4)
    return root


@pytest.fixture
def cifar_config(monkeypatch, cifar_archive):
    """Read a config of classifiers as the tools do, for one epoch on the tiny archive.

    ``cifar_config(path, work_dir, options, method=...)``; paths are from the repository's root, and
    ``checkpoint`` is the file of the one teacher.
    """
    from mmkd.engine.config import load_config, override, validate_config
    from mmkd.engine.data_root import move_data
    monkeypatch.chdir(Path(__file__).parents[1])

    def read(path, work_dir, options=None, checkpoint=None, **arguments):
        if checkpoint is not None:
            arguments['teacher'] += f'={checkpoint}'
        cfg = load_config(path, arguments=dict(data='cifar10') | arguments)
        move_data(cfg, cifar_archive)
        override(cfg, {
            'train_dataloader.batch_size': 8, 'train_cfg.max_epochs': 1, 'log_level': 'WARNING',
            'default_hooks.checkpoint.interval': 1} | (options or {}))
        validate_config(cfg)
        cfg.work_dir, cfg.launcher = str(work_dir), 'none'
        cfg.experiment_name = f'test_{os.path.basename(work_dir)}_{uuid.uuid4().hex}'
        return cfg
    return read


@pytest.fixture
def load_tool(monkeypatch):
    """Turn a tool's file into a function of its arguments, to be called in this process."""
    def load(path):
        spec = importlib.util.spec_from_file_location(f'{path.stem}_tool', path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)

        def run(*args):
            monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
            tool.main()

        return run

    return load
