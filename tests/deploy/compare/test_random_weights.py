"""What an untrained network returns once its weights are settled."""

import numpy as np
import pytest
import torch
from helpers import MEAN, STD, build, centernet

from mmkd.deploy.compare.random_weights import noise_images, settle_random_weights
from mmkd.registry import MODELS


def prepared(images):
    pixels = np.stack(images).astype(np.float32)
    return torch.from_numpy(((pixels - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize('stacks', [0, 2])
def test_maps_of_a_detector(stacks):
    model = build(centernet(stacks=stacks))
    before = torch.get_rng_state()
    settle_random_weights(model, (64, 64))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    with torch.no_grad():
        image = prepared(noise_images((256, 256), 2, seed=7))
        heatmap, size, offset = (levels[-1] for levels in
                                 model.bbox_head(model.extract_feat(image)))
    for maps, mean, deviation in ((heatmap.logit(), -3, .2), (size, 8, 2), (offset, .5, .2)):
        assert maps.mean().item() == pytest.approx(mean, abs=deviation / 3)
        # Over the places of one map.
        assert maps.std((2, 3)).mean().item() == pytest.approx(deviation, rel=0.3)


def test_features_of_a_deep_classifier_do_not_die_away():
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='Classifier', backbone=dict(type='resnet56'), num_classes=10,
        data_preprocessor=dict(type='BatchPreprocessor', mean=MEAN, std=STD)))
    settle_random_weights(model, (32, 32))
    assert all(module.momentum == 0.1 for module in model.modules()
               if isinstance(module, torch.nn.BatchNorm2d))
    features = {}
    hook = model.backbone.register_forward_hook(
        lambda *call: features.update(last=call[-1]))
    with torch.no_grad():
        model(prepared(noise_images((32, 32), seed=7)))
    hook.remove()
    assert 0.1 < features['last'].std(0).mean() < 10
