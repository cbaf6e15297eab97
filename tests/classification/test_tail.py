"""What follows a stage, once more: of the same shape, with weights of its own."""

import pytest
import torch

import mmkd  # noqa: F401
from mmkd.classification.networks import Tail
from mmkd.distillation import TapRecorder
from mmkd.distillation.taps import flat
from mmkd.errors import UserError
from mmkd.registry import MODELS

NETWORKS = ['resnet8', 'wrn_16_1', 'vgg8', 'mobilenetv2_half', 'shufflenetv1', 'shufflenetv2_0_5x']


def _classifier(name):
    torch.manual_seed(0)
    return MODELS.build(dict(type='Classifier', backbone=dict(type=name), num_classes=7)).eval()


@pytest.mark.parametrize('name', NETWORKS)
def test_a_tail_with_the_networks_weights_ends_as_the_network(name):
    model = _classifier(name)
    stages = [f'backbone.stage{i}' for i in range(1, model.backbone.num_stages + 1)]
    recorder = TapRecorder(model, [*stages, 'backbone.embedding'])
    image = torch.randn(2, 3, 32, 32)
    taps = flat(recorder.dry_run(lambda: model(image)))
    for number, stage in enumerate(stages, 1):
        tail = Tail(model, number).eval()
        before = ('backbone.stem', 'data_preprocessor', *(f'{s}.' for s in stages[:number]))
        later = [value for key, value in model.state_dict().items() if not key.startswith(before)]
        assert not torch.allclose(tail(taps[stage])[1], model(image))  # weights of its own
        for mine, theirs in zip(tail.state_dict().values(), later, strict=True):
            assert mine.shape == theirs.shape
            mine.copy_(theirs)
        embedding, logits = tail(taps[stage])
        assert torch.equal(embedding, taps['backbone.embedding'])
        assert torch.equal(logits, model(image))


def test_two_tails_differ_and_what_records_the_network_does_not_hear_them():
    model = _classifier('resnet8')
    recorder = TapRecorder(model, ['backbone.stage3'])
    first, second = Tail(model, 2), Tail(model, 2)
    assert not torch.equal(first.fc.weight, second.fc.weight)
    recorder.start()
    first(torch.randn(2, 32, 16, 16))
    with pytest.raises(UserError, match='a forward pass never calls'):
        recorder.take()


def test_there_is_no_such_stage():
    with pytest.raises(UserError, match='ResNetCIFAR has no stage 4: give a number from 1 to 3'):
        Tail(_classifier('resnet8'), 4)
