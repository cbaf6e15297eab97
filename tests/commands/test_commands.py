"""The command mmkd: what it lists, how every command is called, and what is no command."""

import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from photo_folders import image, xml

from mmkd.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def test_every_module_is_listed_and_fits_one_screen(given):
    modules = {path.stem for path in (ROOT / 'mmkd/commands').glob('*.py')} - {'__init__'}
    assert modules == set(COMMANDS)
    for arguments in ([], ['--help'], ['-h']):
        status, out, _ = given(arguments)
        lines = out.splitlines()
        assert status == 0 and len(lines) <= 24 and max(map(len, lines)) <= 80
        assert [line.split()[0] for line in lines if line.startswith('    ')] == list(COMMANDS)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_names_the_command_and_shows_how_to_call_it(name, given):
    status, out, _ = given([name, '--help'])
    assert status == 0
    assert out.startswith(f'usage: mmkd {name} ')
    assert f'\n    mmkd {name}' in out
    assert import_module(f'mmkd.commands.{name}').__doc__.partition('\n')[0] in out


def test_an_unknown_command_is_one_sentence(given):
    assert given('tran x.py') == (
        1, '', "error: mmkd has no command 'tran'. Did you mean 'train'? `mmkd --help` lists "
        'them\n')


@pytest.mark.parametrize('code, heavy', [
    ("main(['--help'])", {'torch', 'mmengine', 'numpy', 'cv2'}),
    ("[importlib.import_module(f'mmkd.commands.{name}').arguments() for name in COMMANDS]",
     {'torch', 'mmengine'})], ids=['of all', 'of each'])
def test_help_imports_nothing_heavy(code, heavy):
    code = (f"import importlib, sys; from mmkd.commands import COMMANDS, main; {code}\n"
            f"print(*({heavy} & sys.modules.keys()))")
    done = subprocess.run([sys.executable, '-c', code], check=True, text=True, capture_output=True,
                          env={'PYTHONPATH': str(ROOT)})
    assert done.stdout.splitlines()[-1] == ''


def test_options_of_a_config_are_read_as_mmengine_reads_them(capsys):
    parser = import_module('mmkd.commands.train').arguments('mmkd train')
    args = parser.parse_args(['x.py', '--cfg-options', 'a.b=3', 'c=(1,0.5)', '--cfg-options',
                              'd=[x,y]', 'e=None'])
    assert args.cfg_options == {'a.b': 3, 'c': (1, 0.5), 'd': ['x', 'y'], 'e': None}
    with pytest.raises(SystemExit):
        parser.parse_args(['x.py', '--cfg-options', 'a.b'])
    assert "--cfg-options: 'a.b' is no KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize('name', sorted(
    {path.stem for path in (ROOT / 'tools').glob('*.py')} & set(COMMANDS)))
def test_a_tool_is_its_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [f'tools/{name}.py', '--help'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'tools' / f'{name}.py'), run_name='__main__')
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: {name}.py ')


@pytest.fixture
def data(tmp_path):
    """A data set of one cat whose second image is missing."""
    image(tmp_path / 'JPEGImages/a.jpg')
    for name in ('a', 'b'):
        xml(tmp_path / f'Annotations/{name}.xml', ('cat', 1, 1, 5, 5))
    (tmp_path / 'ImageSets/Main').mkdir(parents=True)
    for split in ('train', 'val', 'test'):
        (tmp_path / f'ImageSets/Main/{split}.txt').write_text('a\n')
    return tmp_path


def test_check(data, given):
    status, out, _ = given(['check', str(data), '--classes', 'cat'])
    assert (status, out.splitlines()[-1]) == (0, 'no errors')
    (data / 'ImageSets/Main/train.txt').write_text('a\nb\n')
    status, out, _ = given(['check', str(data)])
    assert status == 1 and out.splitlines()[-1] == '1 errors'
