"""Ways in which a file could run code in a tool of ours; all are closed."""

import pickle
import uuid
from pathlib import Path
from pickle import UnpicklingError

import mmengine
import pytest
import torch
from helpers import centernet, distillation, save_teacher, train_config
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmkd.engine import launch
from mmkd.engine.cli import user_errors
from mmkd.engine.guard import refuse_code_in_files
from mmkd.errors import UserError


class Harmful:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(autouse=True)
def no_leak(monkeypatch):
    """What the guard changes in this process is put back."""
    from mmengine.fileio.handlers import file_handlers
    from mmengine.runner import checkpoint
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    monkeypatch.setattr(checkpoint, '_safe_torch_load', checkpoint._safe_torch_load)
    handler = file_handlers['pkl']
    yield
    vars(handler).clear()


@pytest.fixture
def evil(tmp_path):
    """A weights file that would leave a file named `ran`; nothing may have made it."""
    path, mark = tmp_path / 'evil.pth', tmp_path / 'ran'
    torch.save(dict(state_dict=Harmful(mark), meta={}), path)
    yield path
    assert not mark.exists()


def run(cfg, resume=None):
    cfg.launcher, cfg.experiment_name = 'none', f'guard_{uuid.uuid4().hex}'
    launch.train(cfg, resume)


@pytest.mark.parametrize('spelling', [
    lambda file: dict(init_cfg=dict(type='Pretrained', checkpoint=file)),
    lambda file: dict(init_cfg=dict(type='mmengine.Pretrained', checkpoint=file)),
    lambda file: dict(init_cfg=[dict(type='mmengine.Pretrained', checkpoint=file)]),
    lambda file: dict(init_cfg=None, pretrained=file),
], ids=['usual', 'scoped', 'listed', 'pretrained'])
def test_initial_weights(tmp_path, evil, spelling):
    model = centernet()
    model.backbone.update(spelling(str(evil)))
    with pytest.raises(UserError, match=r'evil\.pth'):
        run(train_config(tmp_path / 'run', model))


def test_load_from_and_resume(tmp_path, evil):
    with pytest.raises(UserError, match=r'evil\.pth'):
        run(train_config(tmp_path / 'run', centernet(), load_from=str(evil)))
    with pytest.raises(UserError, match=r'evil\.pth'):
        run(train_config(tmp_path / 'run', centernet()), str(evil))


def test_a_teachers_checkpoint_and_its_initial_weights(tmp_path, evil):
    entry = save_teacher(tmp_path, 'teacher', centernet())
    hooks = distillation(dict(t=dict(entry, checkpoint=str(evil))),
                         dict(f=dict(type='Term', tap='neck', loss=dict(type='PKDLoss'))))
    with pytest.raises(UserError, match=r'evil\.pth'):
        run(train_config(tmp_path / 'run', centernet(), hooks))

    cfg = Config.fromfile(entry['config'])
    cfg.model.backbone.init_cfg = dict(type='mmengine.Pretrained', checkpoint=str(evil))
    refuse_code_in_files()
    with DefaultScope.overwrite_default_scope('mmkd'), pytest.raises(UserError, match=r'evil\.pth'):
        MMDET_MODELS.build(cfg.model).init_weights()


def test_loaders_of_other_libraries(evil):
    refuse_code_in_files()
    with pytest.raises(UnpicklingError):
        torch.load(evil, weights_only=False)
    with pytest.raises(UnpicklingError):
        torch.hub.load_state_dict_from_url(
            'https://example.org/evil.pth', model_dir=str(evil.parent), weights_only=False)


def test_an_unpickling_error_is_a_sentence(capsys):
    with pytest.raises(SystemExit), user_errors():
        raise UnpicklingError('Weights only load failed.\nline 2')
    assert 'could run code' in capsys.readouterr().err


def test_pickles_that_a_config_names(tmp_path):
    refuse_code_in_files()
    (tmp_path / 'boxes.pkl').write_bytes(pickle.dumps(Harmful(tmp_path / 'ran')))
    with pytest.raises(UserError, match='JSON'):
        mmengine.load(tmp_path / 'boxes.pkl')
    assert not (tmp_path / 'ran').exists()


def test_what_is_harmless_still_loads(tmp_path):
    torch.save(dict(state_dict=dict(weight=torch.ones(2)), meta=dict(epoch=3)), tmp_path / 'a.pth')
    refuse_code_in_files()
    loaded = mmengine.runner.CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded['meta'] == dict(epoch=3) and torch.equal(
        loaded['state_dict']['weight'], torch.ones(2))
