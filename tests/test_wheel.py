"""What an installation has: the command, and configs, tools and studies in their places."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    pytest.importorskip('setuptools')
    folder = tmp_path_factory.mktemp('built')
    subprocess.run([sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', folder, 'build_py',
                    '--build-lib', folder / 'lib'], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_an_installation_has_what_the_repository_has(built):
    carried = built / 'lib/mmkd/.mim'
    for folder in ('configs', 'tools', 'studies'):
        expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob('*')
                    if path.is_file() and '__pycache__' not in path.parts}
        assert expected == {path.relative_to(carried).as_posix()
                            for path in (carried / folder).rglob('*') if path.is_file()}
    assert not any(path.is_symlink() for path in carried.rglob('*'))
    assert (built / 'lib/mmkd/commands/train.py').is_file()


def test_it_has_the_command(built):
    [scripts] = built.glob('*.egg-info/entry_points.txt')
    assert scripts.read_text().split() == ['[console_scripts]', 'mmkd', '=', 'mmkd.commands:main']


def test_the_index_names_configs_that_are_there(built):
    carried = built / 'lib/mmkd/.mim'
    files = yaml.safe_load((carried / 'model-index.yml').read_text())['Import']
    models = [model for file in files for model in
              yaml.safe_load((carried / file).read_text())['Models']]
    assert len({model['Name'] for model in models}) == len(models)
    assert all((carried / model['Config']).is_file() for model in models)
    folders = {path.parent.relative_to(carried).as_posix()
               for path in carried.glob('configs/*/*.py') if path.parent.name != '_base_'}
    assert {file.rpartition('/')[0] for file in files} == folders
