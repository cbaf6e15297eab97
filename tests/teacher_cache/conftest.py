"""What the tests of cached teachers share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `tiny_cache`


@pytest.fixture
def processes(monkeypatch):
    """Let mmengine believe that this is process ``rank`` of ``count``."""
    def pretend(rank, count):
        monkeypatch.setattr('mmengine.dist.utils.is_distributed', lambda: True)
        monkeypatch.setattr('mmengine.dist.utils.get_default_group', lambda: None)
        monkeypatch.setattr('torch.distributed.get_rank', lambda group=None: rank)
        monkeypatch.setattr('torch.distributed.get_world_size', lambda group=None: count)
    return pretend


@pytest.fixture
def no_teachers(monkeypatch):
    """Let nothing build a network of a teacher from now on."""
    def refuse(name, *args, **kwargs):
        raise AssertionError(f'{name} is built')
    return lambda: monkeypatch.setattr('mmkd.distillation.entries.build_teacher', refuse)


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    """Entries of two tiny teachers."""
    from tiny_cache import save_teachers
    return save_teachers(tmp_path_factory.mktemp('teachers'))
