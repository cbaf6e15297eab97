"""tools/visualize_embeddings.py."""

import importlib.util

import pytest
import torch
from tiny_run import ROOT

import mmkd  # noqa: F401
from mmkd.classification.data import MemoryDataset
from mmkd.detection.data import draw_dataset
from mmkd.registry import DATASETS, MODELS
from mmkd.visualization import embeddings

CONFIG = """
_base_ = ['{root}/configs/_base_/runtime.py']
def network(name):
    return dict(type='Classifier', backbone=dict(type=name), num_classes=3,
                data_preprocessor=dict(type='BatchPreprocessor', mean=[120.] * 3, std=[60.] * 3))
model = network('resnet8')
teachers = dict(
    wide=dict(model=network('wrn_16_1'), checkpoint='teacher.pth'))
del network
test_dataloader = dict(
    batch_size=8, num_workers=0, drop_last=False, collate_fn=dict(type='whole_batch'),
    sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='ThreeColours'))
"""


@DATASETS.register_module(force=True)
class ThreeColours(MemoryDataset):
    """Thirty noisy images of 8 x 8, one class for each colour."""

    def __init__(self):
        labels = torch.arange(3).repeat(10)
        images = torch.randint(0, 100, (30, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        images += 150 * torch.eye(3, dtype=torch.int64)[labels][:, :, None, None]
        super().__init__(images.to(torch.uint8), labels, ('red', 'green', 'blue'))


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, file in (('resnet8', 'student.pth'), ('wrn_16_1', 'teacher.pth')):
        torch.manual_seed(0)
        model = MODELS.build(dict(type='Classifier', backbone=dict(type=name), num_classes=3))
        # Says class 0 of every image: right for 10 of 30.
        model.head.fc.bias.data = torch.tensor([1000.0, 0.0, 0.0])
        torch.save(dict(state_dict=model.state_dict()), file)
    (tmp_path / 'colours.py').write_text(CONFIG.format(root=ROOT))
    return 'colours.py'


@pytest.fixture
def drawn(config, tool, tmp_path, monkeypatch):
    """Run the tool; return its result, and the size and title of every panel."""
    def run(*args):
        panels = []
        original = embeddings.draw_panels

        def draw(*arguments):
            panels.extend(arguments[0])
            original(*arguments)
        monkeypatch.setattr(embeddings, 'draw_panels', draw)
        result = tool('visualize_embeddings.py', config, *args)
        return result, [(panel.points.shape, panel.title) for panel in panels]
    return run


def test_student_and_teacher_have_a_panel_each(drawn, tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    monkeypatch.setattr(embeddings, 'project', lambda features, seed: features[:, :2].numpy())
    monkeypatch.setattr(embeddings, '_check_extra', lambda: None)
    (status, out, err), panels = drawn('student.pth', '--out', 'picture.png')
    assert (status, out.splitlines()[-1]) == (0, 'drawn: picture.png'), err
    assert panels == [((30, 2), 'resnet8 (student)\ntop-1 33.3'),
                      ((30, 2), 'wide (teacher)\ntop-1 33.3')]
    assert (tmp_path / 'picture.png').read_bytes().startswith(b'\x89PNG')


def test_with_scikit_learn(drawn, tmp_path):
    pytest.importorskip('sklearn')
    (status, _, err), panels = drawn('student.pth', '--out', 'picture.pdf', '--classes', '2',
                                     '--images', '15')
    assert status == 0, err
    assert [shape for shape, _ in panels] == [(15, 2)] * 2
    assert (tmp_path / 'picture.pdf').stat().st_size


@pytest.mark.parametrize('args, sentence', [
    (['student.pth', '--out', 'picture.txt'], "--out 'picture.txt' is no picture"),
    (['gone.pth', '--out', 'a.png'], "checkpoint 'gone.pth' does not exist"),
    (['teacher.pth', '--out', 'a.png'], 'do not fit ResNetCIFAR'),
    (['student.pth', '--out', 'a.png', '--images', '3'], 't-SNE needs 10'),
])
def test_embedding_errors_are_one_line(args, sentence, drawn, monkeypatch):
    monkeypatch.setattr(embeddings, '_check_extra', lambda: None)
    (status, _, err), _ = drawn(*args)
    [line] = [line for line in err.splitlines() if line.startswith('error: ')]
    assert status == 1
    assert sentence in line
    assert 'Traceback' not in err


def test_a_config_of_a_detector_is_refused(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, '_check_extra', lambda: None)
    draw_dataset(tmp_path / 'drawn', splits=dict(test=1), image_size=32)
    monkeypatch.setenv('DRAWN_ROOT', f'{tmp_path}/drawn/')
    status, _, err = tool('visualize_embeddings.py', str(ROOT / 'configs/demo/centernet_r18.py'),
                          'student.pth', '--out', str(tmp_path / 'a.png'))
    assert status == 1 and 'Traceback' not in err
    assert 'error: VOCLayoutDataset does not tell the classes of its images' in err


@pytest.mark.parametrize('missing, package', [('sklearn', 'scikit-learn'),
                                              ('matplotlib', 'matplotlib')])
def test_a_missing_extra_is_named(missing, package, drawn, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name != missing or None)
    (status, _, err), _ = drawn('student.pth', '--out', 'a.png')
    assert status == 1
    assert f'error: {package} is missing' in err
    assert 'pip install mmkd[vis]' in err
