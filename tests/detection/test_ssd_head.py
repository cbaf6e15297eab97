"""SSD predicts."""

import math

import torch
from mmengine.config import ConfigDict

from mmkd.registry import MODELS


def test_scores_are_a_softmax_and_boxes_the_priors():
    head = MODELS.build(dict(
        type='SSDHead', num_classes=2, in_channels=(4, ),
        anchor_generator=dict(type='SSDAnchorGenerator', scale_major=False, input_size=64,
                              strides=[32], ratios=([2], ), min_sizes=[20], max_sizes=[30]),
        test_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=0.45), score_thr=0.5,
                            nms_pre=9, max_per_img=5)))
    classes, boxes = torch.zeros(1, 4 * 3, 2, 2), torch.zeros(1, 4 * 4, 2, 2)
    classes[0, 1, 1, 0] = math.log(18)  # the first prior of the lower left cell: e^x / (e^x + 2)
    [found] = head.predict_by_feat([classes], [boxes],
                                   batch_img_metas=[dict(img_shape=(64, 64))], with_nms=True)
    torch.testing.assert_close(found.scores, torch.tensor([0.9]))
    assert found.labels.tolist() == [1]
    torch.testing.assert_close(found.bboxes, torch.tensor([[6.0, 38, 26, 58]]))
