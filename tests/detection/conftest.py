"""Two CenterNets as teachers, and a place for what teachers say of noise."""

import pytest
from helpers import NoiseDetection, centernet, save_teacher


@pytest.fixture(scope='session')
def teachers(tmp_path_factory):
    """One of more channels than the tests' students have, and an Hourglass."""
    folder = tmp_path_factory.mktemp('teachers')
    return dict(resnet=save_teacher(folder, 'resnet', centernet(channels=16, base_channels=8)),
                hourglass=save_teacher(folder, 'hourglass', centernet(stacks=2), seed=2))


@pytest.fixture
def one_teacher(teachers):
    return dict(resnet=teachers['resnet'])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The line ``teacher_cache`` of a config; noise gets the name by which a cache knows it."""
    monkeypatch.setattr(NoiseDetection, 'identity', lambda self: 'noise', raising=False)
    return dict(folder=str(tmp_path / 'cache'), views=1)
