"""Every loss with a temperature refuses one that is not above 0, in one sentence."""

import inspect
import math

import pytest
import torch

import mmkd  # noqa: F401
from mmkd.distillation import losses

KNOWN = dict(student_channels=3, teacher_channels=4, sample_labels=torch.tensor([0, 1]),
             student_model=None)


def _parameters(name):
    return inspect.signature(getattr(losses, name).__init__).parameters


CASES = [(name, argument) for name in losses.__all__ for argument in _parameters(name)
         if argument == 'tau' or 'temperature' in argument]


def test_there_are_as_many_as_expected():
    names = {name for name, _ in CASES}
    assert {'KDLoss', 'CSKDLoss', 'DKDLoss', 'DISTLoss', 'FSECDLoss', 'CRDLoss', 'BYOTLoss',
            'DDGSDLoss', 'MCLLoss', 'LMCLLoss', 'CWDLoss', 'FGDLoss', 'AttentionLoss', 'LDLoss',
            'KDDETRLoss', 'DMLLoss', 'KDCLLoss', 'ONELoss', 'OKDDipLoss', 'PCLLoss'} <= names


@pytest.mark.parametrize('value', [0, -1.5, math.nan])
@pytest.mark.parametrize(('name', 'argument'), CASES)
def test_a_temperature_that_is_not_above_0(name, argument, value):
    needed = {key: KNOWN[key] for key in KNOWN if key in _parameters(name)}
    with pytest.raises(losses.InputError) as error:
        getattr(losses, name)(**needed | {argument: value})
    assert str(error.value) == f'{name} needs a {argument} above 0, not {value!r}'
