"""Teachers: built, frozen, given their own inputs; and refused when something is wrong."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MEAN, STD, build, centernet, save_teacher
from torch import nn

from mmkd.checkpoints import load_weights
from mmkd.distillation.teachers import (
    Teacher,
    build_teacher,
    renormalisation,
    undisturbed_random_state,
)
from mmkd.errors import UserError


class Dropper(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.drop = nn.Conv2d(3, 4, 1), nn.Dropout(0.5)

    def forward(self, inputs, mode='tensor'):
        return self.drop(self.conv(inputs))


def _preprocessor(mean=MEAN, std=STD, bgr_to_rgb=True):
    return build(centernet(mean=mean, std=std, bgr_to_rgb=bgr_to_rgb)).data_preprocessor


def test_a_teacher_is_frozen_and_without_dropout():
    teacher = Teacher('t', Dropper())
    x = torch.randn(1, 3, 4, 4)
    teacher.tap(['drop'], x)
    first, second = teacher(x)['drop'], teacher(x)['drop']
    assert torch.equal(first, second) and not first.requires_grad
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_a_checkpoint_of_another_epoch_is_named(tmp_path):
    for number in (9, 10, 1):
        (tmp_path / f'epoch_{number}.pth').touch()
    with pytest.raises(UserError, match=r"epoch_240\.pth' does not exist: .*; in that folder there "
                                        r'are: epoch_1\.pth, epoch_9\.pth, epoch_10\.pth$'):
        load_weights(Dropper(), tmp_path / 'epoch_240.pth')
    for number in range(11, 21):
        (tmp_path / f'epoch_{number}.pth').touch()
    with pytest.raises(UserError, match=r'are: epoch_11\.pth, .*, epoch_20\.pth and 3 before them'):
        load_weights(Dropper(), tmp_path / 'epoch_240.pth')
    with pytest.raises(UserError, match='; in that folder there are: no checkpoints'):
        (tmp_path / 'empty').mkdir()
        load_weights(Dropper(), tmp_path / 'empty/epoch_240.pth')
    with pytest.raises(UserError, match=r"; there is no folder '.*gone' either"):
        load_weights(Dropper(), tmp_path / 'gone/epoch_240.pth')


def _raw_batch():
    return dict(inputs=[torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8)], data_samples=None)


@pytest.mark.parametrize('mean, std, bgr_to_rgb', [
    ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], True),
    (MEAN, STD, False),
    ([103.53, 116.28, 123.675], [1.0, 2.0, 3.0], False),
])
def test_renormalised_inputs_are_what_the_teacher_would_have_read(mean, std, bgr_to_rgb):
    student, teacher = _preprocessor(), _preprocessor(mean, std, bgr_to_rgb)
    batch = _raw_batch()
    ours = student(dict(batch, inputs=[batch['inputs'][0].clone()]))['inputs']
    theirs = teacher(dict(batch, inputs=[batch['inputs'][0].clone()]))['inputs']

    class Sample:
        img_shape = (64, 48)

    got = renormalisation(student, teacher)(ours, [Sample()])
    torch.testing.assert_close(got, theirs, rtol=1e-4, atol=1e-4)
    assert torch.equal(got[..., 48:], torch.zeros_like(got[..., 48:])), 'padding stays 0'
    assert renormalisation(student, _preprocessor()) is None, 'equal ones need nothing'


def test_random_state_is_put_back():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    with undisturbed_random_state():
        expected = draw()
        draw()
    assert draw() == expected


def _build(entry, preprocessor=None, **kwargs):
    return build_teacher('big', student_preprocessor=preprocessor or _preprocessor(),
                         device=torch.device('cpu'), **entry, **kwargs)


def test_a_teacher_from_files(tmp_path):
    entry = save_teacher(tmp_path, 'big', centernet())
    preprocessor, state = _preprocessor(), torch.random.get_rng_state()
    teacher = _build(entry, preprocessor, weight=2.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert teacher.classes == ('disc', 'ring', 'star') and teacher.weight == 2.0
    saved = torch.load(entry['checkpoint'], weights_only=True)['state_dict']
    for key, value in teacher.model.state_dict().items():
        assert torch.equal(value, saved[key])


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def _other(**options):
    return build(centernet(**options)).state_dict()


@pytest.mark.parametrize('content, message', [
    (lambda whole: whole[:len(whole) // 2], 'is truncated, damaged or no PyTorch checkpoint'),
    (lambda whole: b'', 'is truncated, damaged or no PyTorch checkpoint'),
    (lambda whole: b'<html>404</html>', 'is truncated, damaged or no PyTorch checkpoint'),
    (lambda _: dict(state_dict=Calls(eval, ("open('pwned', 'w')",))),
     'could run code when loaded, so it is refused'),
    (lambda _: dict(state_dict=Calls(getattr, (nn.Module, 'forward'))),
     'could run code when loaded, so it is refused'),
    (lambda _: [torch.zeros(1)], 'holds a list instead of weights by name'),
    (lambda _: _other(stacks=1),
     r"of another architecture than the config's CenterNet: \d+ missing"),
    (lambda _: _other(base_channels=8),
     r'of another shape \(first: backbone\.conv1\.weight \(8, 3, 7, 7\) for \(4, 3, 7, 7\)'),
])
def test_bad_checkpoints_are_refused_in_one_sentence(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    entry = save_teacher(tmp_path, 'big', centernet())
    path = Path(entry['checkpoint'])
    content = content(path.read_bytes())
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as caught:
        _build(entry)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize('key, message', [
    ('checkpoint', r"teacher 'big': checkpoint '.*\.gone' does not exist"),
    ('config', r"config '.*\.gone' does not exist: correct the path")])
def test_files_that_are_not_there(tmp_path, key, message):
    entry = save_teacher(tmp_path, 'big', centernet())
    with pytest.raises(UserError, match=message) as caught:
        _build(entry | {key: entry[key] + '.gone'})
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('weight', [0, -1, float('nan'), float('inf'), 'big'])
def test_a_teachers_weight_is_a_positive_number(tmp_path, weight):
    entry = save_teacher(tmp_path, 'big', centernet())
    with pytest.raises(UserError, match="teacher 'big' has weight"):
        _build(entry, weight=weight)


def test_a_part_that_is_saved_under_two_names_counts_once(tmp_path):
    """As a DDQ's is, once it was trained."""
    network, path = nn.ModuleDict(dict(head=nn.Linear(2, 3))), tmp_path / 'trained.pth'
    state = {name: torch.randn_like(value) for name, value in network.state_dict().items()}
    again = {name.replace('head', 'decoder'): value for name, value in state.items()}
    torch.save(dict(state_dict=state | again), path)
    load_weights(network, path)
    torch.testing.assert_close(network.head.weight.detach(), state['head.weight'])
    torch.save(dict(state_dict=state | {'decoder.bias': torch.zeros(3)}), path)
    with pytest.raises(UserError, match=r'1 unexpected \(first: decoder.bias\)'):
        load_weights(network, path)
