"""tools/export.py from argument to exit status."""

import importlib.util
import sys
from pathlib import Path

import onnx
import pytest

from mmkd.deploy import export

TOOL = Path(__file__).parents[2] / 'tools/export.py'


@pytest.fixture
def run(monkeypatch):
    spec = importlib.util.spec_from_file_location('export_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        tool.main()

    return run


def test_exports_checks_and_says_so(run, exported, images, tmp_path, capsys, monkeypatch):
    # The same weights give the same graph: made once for all tests.
    monkeypatch.setattr(export, '_to_onnx', lambda *args: onnx.load(exported.onnx))
    run(exported.config, exported.checkpoint, '--out', tmp_path / 'a/student.onnx',
        '--images', images[0].parent, images[1])
    told = capsys.readouterr().out
    assert 'same as PyTorch on random inputs: 4 inputs' in told
    assert f'same as PyTorch on images: {len(images) + 1} inputs' in told
    assert [file.name for file in (tmp_path / 'a').iterdir()] == ['student.onnx']
    run(exported.config, exported.checkpoint, '--out', tmp_path / 'b.onnx')
    assert 'not checked on images' in capsys.readouterr().out


@pytest.mark.parametrize(('options', 'message'), [
    (['none.pth'], 'none.pth'),
    (['epoch_1.pth', '--images', 'none.jpg'], "'none.jpg' does not exist"),
    (['epoch_1.pth', '--images', 'broken.jpg'], "'broken.jpg' is missing or does not decode"),
    (['epoch_1.pth', '--cfg-options', 'model.bbox_head.num_classes=4'], 'another architecture'),
])
def test_an_error_is_one_line(run, exported, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, '_to_onnx', lambda *args: onnx.load(exported.onnx))
    (tmp_path / 'epoch_1.pth').symlink_to(exported.checkpoint)
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    with pytest.raises(SystemExit) as ended:
        run(exported.config, *options, '--out', 'student.onnx')
    assert ended.value.code == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith('error: ')
    assert message in told
    assert not list(tmp_path.glob('*.onnx'))
    assert not list(tmp_path.glob('.*'))
