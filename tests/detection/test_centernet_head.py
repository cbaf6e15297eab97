"""CenterNet's head against the published rules, written out here, and against MMDetection's."""

import copy
import math

import mmkd  # noqa: F401  (before mmdet)

# isort: split
import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import CenterNetHead as MMDetCenterNetHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmkd.detection.centernet_head import CenterNetHead
from mmkd.errors import UserError

TEST_CFG = ConfigDict(topk=20, local_maximum_kernel=3, max_per_img=20)
INPUT = (96, 128)  # height, width, for maps of a quarter of it
MAP = (24, 32)


def make_head(num_classes=3, **kwargs):
    torch.manual_seed(0)
    return CenterNetHead(4, 6, num_classes, test_cfg=TEST_CFG, **kwargs)


def instances(*objects):
    """Make ground truth of (x1, y1, x2, y2, label) tuples."""
    values = torch.tensor(objects).reshape(-1, 5)
    return InstanceData(bboxes=values[:, :4], labels=values[:, 4].long())


def random_objects(generator, count, height, width):
    """Boxes that repeat, collide in a cell, touch the border, fill the image or have no size."""
    size = torch.tensor([width, height])
    center = torch.rand(count, 2, generator=generator) * (size - 1)
    extent = torch.rand(count, 2, generator=generator)**2 * size
    boxes = torch.cat((center - extent / 2, center + extent / 2), dim=1)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    for index, box in enumerate([[0, 0, width, height], [0, 0, 1, 1], [5, 5, 5, 5],
                                 [width - 1, height - 1, width, height], [0, 7, 3, height]]):
        if count > 2 * index + 3:
            boxes[2 * index + 1] = torch.tensor(box)
            boxes[2 * index + 2] = boxes[2 * index] + 0.3
    return boxes, torch.randint(0, 3, (count,), generator=generator)


# --- targets ------------------------------------------------------------------------------------


def radius_by_definition(height, width, iou=0.3):
    """CornerNet: the largest shift of both corners that keeps the IoU, in the worst direction."""
    area, radius = height * width, 0
    while True:
        r = radius + 1
        common = (height - r) * (width - r)
        ious = (common / (2 * area - common),  # both corners go the same way
                (height - 2 * r) * (width - 2 * r) / area,  # inwards
                area / ((height + 2 * r) * (width + 2 * r)))  # outwards
        if min(ious) < iou:
            return radius
        radius = r


def targets_by_definition(boxes, labels, num_classes):
    """One image's targets as loops over objects and cells, in float64."""
    heatmap = np.zeros((num_classes, *MAP))
    wh, offset, weight = np.zeros((2, *MAP)), np.zeros((2, *MAP)), np.zeros((2, *MAP))
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        width, height = (x2 - x1) / 4, (y2 - y1) / 4
        center = (x1 + x2) / 8, (y1 + y2) / 8
        column, row = math.floor(center[0]), math.floor(center[1])
        radius = radius_by_definition(height, width)
        sigma = (2 * radius + 1) / 6
        for y in range(max(0, row - radius), min(MAP[0], row + radius + 1)):
            for x in range(max(0, column - radius), min(MAP[1], column + radius + 1)):
                value = math.exp(-((x - column)**2 + (y - row)**2) / (2 * sigma**2))
                heatmap[label, y, x] = max(heatmap[label, y, x], value)
        wh[:, row, column] = width, height
        offset[:, row, column] = center[0] - column, center[1] - row
        weight[:, row, column] = 1
    return heatmap, wh, offset, weight


def test_targets_follow_the_published_rule():
    images = [
        [[10.0, 12.0, 61.0, 50.0], [33.0, 20.0, 110.0, 90.0], [8.0, 8.0, 15.0, 14.0]],
        [[0.0, 0.0, 127.0, 95.0], [100.0, 70.0, 128.0, 96.0], [0.0, 60.0, 9.0, 96.0],
         [2.0, 3.0, 4.0, 5.0]],
        [[20.0, 20.0, 40.0, 40.0], [20.0, 21.0, 41.0, 40.0]],  # one cell: the last one wins
    ]
    labels = [[0, 2, 0], [1, 0, 0, 2], [1, 1]]
    targets, avg_factor = make_head().get_targets(
        [torch.tensor(boxes) for boxes in images], [torch.tensor(item) for item in labels],
        (3, 3, *MAP), INPUT)
    for index, (boxes, classes) in enumerate(zip(images, labels, strict=True)):
        expected = targets_by_definition(boxes, classes, 3)
        for name, value in zip(('center_heatmap_target', 'wh_target', 'offset_target',
                                'wh_offset_target_weight'), expected, strict=True):
            np.testing.assert_allclose(targets[name][index].numpy(), value, atol=2e-6, err_msg=name)
    assert avg_factor == 8  # nine objects, two of which share a cell of a class


@pytest.mark.parametrize('map_size', [(24, 32), (32, 32), (75, 50)])
def test_targets_equal_mmdetections_bit_for_bit(map_size):
    head = make_head()
    theirs = MMDetCenterNetHead(4, 6, 3)
    generator = torch.Generator().manual_seed(sum(map_size))
    input_size = (map_size[0] * 4, map_size[1] * 4)
    for counts in ((0, 0), (1, 0), (0, 3), (13, 14), (40, 5), (2, 1)):
        objects = [random_objects(generator, count, *input_size) for count in counts]
        boxes, labels = ([item[i] for item in objects] for i in (0, 1))
        ours, avg_factor = head.get_targets(boxes, labels, (2, 3, *map_size), input_size)
        expected, expected_factor = theirs.get_targets(
            boxes, labels, (2, 3, *map_size), input_size)
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(ours[name], value), (counts, name)
        assert avg_factor == expected_factor


def test_an_object_outside_the_map_is_left_out():
    inside = instances((8.0, 8.0, 40.0, 40.0, 1))
    both = instances((8.0, 8.0, 40.0, 40.0, 1), (120.0, 90.0, 140.0, 110.0, 0),
                     (-60.0, 10.0, -20.0, 20.0, 0), (128.0, 0.0, 128.0, 9.0, 2))
    head = make_head()
    expected, factor = head.get_targets([inside.bboxes], [inside.labels], (1, 3, *MAP), INPUT)
    targets, factor_of_both = head.get_targets(
        [both.bboxes], [both.labels], (1, 3, *MAP), INPUT)
    assert factor == factor_of_both == 1
    for name, value in expected.items():
        assert torch.equal(targets[name], value), name


def test_a_label_beyond_the_classes_is_refused():
    wrong = instances((8.0, 8.0, 40.0, 40.0, 3))
    with pytest.raises(UserError, match=r'label 3 but bbox_head.num_classes is 3'):
        make_head().get_targets([wrong.bboxes], [wrong.labels], (1, 3, *MAP), INPUT)


# --- decoding -----------------------------------------------------------------------------------


def decode_by_definition(heatmap, wh, offset, k):
    """Peaks of 3 x 3 cells, highest first, as (score, label, x1, y1, x2, y2) in input pixels."""
    classes, height, width = heatmap.shape
    found = []
    for label in range(classes):
        for y in range(height):
            for x in range(width):
                around = [heatmap[label, j, i] for j in range(max(0, y - 1), min(height, y + 2))
                          for i in range(max(0, x - 1), min(width, x + 2))]
                if heatmap[label, y, x] == max(around):
                    found.append((heatmap[label, y, x], label, y, x))
    boxes = []
    for score, label, y, x in sorted(found, reverse=True)[:k]:
        center = x + offset[0, y, x], y + offset[1, y, x]
        half = wh[0, y, x] / 2, wh[1, y, x] / 2
        boxes.append((score, label, *(4 * v for v in (
            center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]))))
    return np.array(boxes)


@pytest.mark.parametrize('border', [None, (6.0, 2.0, 10.0, 4.0)])
@pytest.mark.parametrize('scale_factor', [None, (0.5, 0.8)])
def test_decoding_follows_the_published_rule(border, scale_factor):
    generator = torch.Generator().manual_seed(1)
    heatmaps = torch.rand(2, 3, *MAP, generator=generator)
    whs, offsets = torch.rand(2, 2, 2, *MAP, generator=generator)
    meta = dict(batch_input_shape=INPUT)
    shift = np.zeros(4)
    if border:
        meta['border'] = border
        shift = np.array([border[2], border[0], border[2], border[0]])
    if scale_factor:
        meta['scale_factor'] = scale_factor
    # A first stack that must not be looked at.
    results = make_head().predict_by_feat(
        [torch.rand_like(heatmaps), heatmaps], [whs * 7, 20 * whs], [offsets - 1, offsets],
        [meta, meta])
    for index, result in enumerate(results):
        expected = decode_by_definition(
            *(maps[index].double().numpy() for maps in (heatmaps, 20 * whs, offsets)), 20)
        boxes = (expected[:, 2:] - shift) / np.array([*(scale_factor or (1, 1))] * 2)
        np.testing.assert_allclose(result.scores, expected[:, 0], rtol=1e-6)
        np.testing.assert_array_equal(result.labels, expected[:, 1])
        np.testing.assert_allclose(result.bboxes, boxes, rtol=1e-4, atol=1e-3)
    assert 'border' in meta or border is None, 'the meta of the image is not changed'


# --- stacks -------------------------------------------------------------------------------------


def test_one_stack_is_interchangeable_with_mmdetections_head():
    head, theirs = make_head().eval(), MMDetCenterNetHead(4, 6, 3).eval()
    assert list(head.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(head.state_dict())
    features = (torch.randn(2, 4, *MAP),)
    for ours, expected in zip(head(features), theirs(features), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_two_stacks_cost_the_mean_of_two_of_mmdetections_heads():
    head = make_head(num_stacks=2)
    head.init_weights()
    stacks = [torch.randn(2, 4, *MAP) for _ in range(2)]
    truth = [instances((10.0, 12.0, 61.0, 50.0, 0), (33.0, 20.0, 110.0, 90.0, 2)), instances()]
    metas = [dict(batch_input_shape=INPUT)] * 2
    losses = head.loss_by_feat(*head(stacks), truth, metas)

    expected = dict.fromkeys(losses, 0.0)
    for features, heads in zip(stacks, (head.intermediate_heads[0], head), strict=True):
        theirs = MMDetCenterNetHead(4, 6, 3)
        weights = {name: value for name, value in heads.state_dict().items()
                   if not name.startswith('intermediate_heads')}
        theirs.load_state_dict(weights)
        for name, value in theirs.loss_by_feat(*theirs((features,)), truth, metas).items():
            expected[name] += value.item() / 2
    assert losses.keys() == {'loss_center_heatmap', 'loss_wh', 'loss_offset'}
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-6), name


def test_only_the_last_stack_predicts():
    head = make_head(num_stacks=3)
    stacks = [torch.randn(1, 4, *MAP) for _ in range(3)]
    trained = head(stacks)
    assert [len(maps) for maps in trained] == [3, 3, 3]
    predicted = head.eval()(stacks)
    assert [len(maps) for maps in predicted] == [1, 1, 1]
    for training_maps, maps in zip(trained, predicted, strict=True):
        assert torch.equal(training_maps[-1], maps[0])


def test_a_wrong_number_of_stacks_is_refused():
    with pytest.raises(UserError, match='returns 2 maps: set'):
        make_head()([torch.randn(1, 4, *MAP)] * 2)
    with pytest.raises(UserError, match='num_stacks is 0'):
        make_head(num_stacks=0)


def test_every_stack_starts_from_the_same_distribution():
    head = make_head(num_stacks=2)
    head.init_weights()
    for heads in (head.intermediate_heads[0], dict(head.named_children())):
        # Heatmaps start at sigmoid(bias) = 0.1, sizes and offsets near 0.
        torch.testing.assert_close(heads['heatmap_head'][-1].bias.sigmoid(), torch.full((3,), 0.1))
        for name in ('wh_head', 'offset_head'):
            assert 0 < heads[name][-1].weight.std() < 0.002
            assert heads[name][-1].bias.abs().max() == 0


# --- losses -------------------------------------------------------------------------------------


def test_images_without_objects_give_finite_losses_and_gradients():
    head = make_head(num_stacks=2)
    losses = head.loss_by_feat(*head([torch.randn(2, 4, *MAP)] * 2), [instances(), instances()],
                               [dict(batch_input_shape=INPUT)] * 2)
    assert losses['loss_wh'] == losses['loss_offset'] == 0
    sum(losses.values()).backward()
    assert losses['loss_center_heatmap'] > 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    copied = copy.deepcopy(head)  # which fails where something of the step is kept
    assert copied.state_dict().keys() == head.state_dict().keys()


@pytest.mark.parametrize('bias', [-40.0, 40.0])
def test_saturated_half_precision_heatmaps_keep_the_loss_finite(bias):
    head = make_head()
    torch.nn.init.constant_(head.heatmap_head[-1].bias, bias)
    with torch.autocast('cpu', torch.bfloat16):
        maps = head((torch.randn(1, 4, *MAP),))
        losses = head.loss_by_feat(
            *maps, [instances((10.0, 12.0, 61.0, 50.0, 0))], [dict(batch_input_shape=INPUT)])
    assert maps[0][0].dtype == torch.float32
    assert all(torch.isfinite(value) for value in losses.values())
