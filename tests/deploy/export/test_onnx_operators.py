"""NMS and RoIAlign of a graph: what ONNX Runtime computes is what mmcv and plain loops do."""

import numpy as np
import onnxruntime
import pytest
import torch
from mmcv.ops import roi_align as of_mmcv
from reference import by_loops
from torch import nn

from mmkd.deploy.export.onnx_file import to_onnx
from mmkd.deploy.export.onnx_operators import kept_by_nms, roi_align

THRESHOLD, LIMIT, BINS, SCALE = 0.5, 12, 3, 0.25


class Both(nn.Module):
    """The two operators on boxes that are fixed, and features that are not."""

    output_names = ('kept', 'read', 'read_from_centres')

    def __init__(self, boxes, scores):
        super().__init__()
        self.register_buffer('boxes', boxes)
        self.register_buffer('scores', scores)

    def forward(self, image):
        batch = image.shape[0]
        # As many boxes for every image, but moved.
        moved = self.boxes + torch.arange(batch)[:, None, None]
        scores = self.scores.expand(batch, -1)
        kept = kept_by_nms(moved, scores, THRESHOLD, LIMIT)
        images = torch.arange(batch)[:, None].expand(-1, len(self.boxes)).flatten()
        read = [roi_align(image, moved.flatten(0, 1), images, BINS, BINS, SCALE, ratio, aligned)
                for ratio, aligned in ((0, True), (2, False))]
        return kept, *read


@pytest.fixture(scope='module')
def case():
    generator = np.random.default_rng(0)
    corners = generator.uniform(-10, 60, (40, 2))
    boxes = np.concatenate((corners, corners + generator.uniform(0, 40, (40, 2))), 1)
    # Some are worth nothing, some have no area, and some lie outside.
    boxes[3, 2:] = boxes[3, :2]
    scores = np.where(np.arange(40) % 7 == 0, -1, generator.random(40))
    graph = Both(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores).float()).eval()
    image = torch.randn(3, 5, 18, 14, generator=torch.Generator().manual_seed(0))
    proto = to_onnx(graph, image[:2], {0: torch.export.Dim('batch')}, 18)
    session = onnxruntime.InferenceSession(proto.SerializeToString(),
                                           providers=['CPUExecutionProvider'])
    return graph, image, session


def test_nms_keeps_what_loops_keep(case):
    graph, image, session = case
    kept = session.run(['kept'], {'image': image.numpy()})[0]
    assert (kept == graph(image)[0].numpy()).all()
    assert kept.dtype == bool
    there = np.flatnonzero(graph.scores.numpy() >= 0)
    for index, own in enumerate(kept):
        boxes = (graph.boxes + index).numpy()[there]
        expected = by_loops(boxes, graph.scores.numpy()[there], THRESHOLD)
        assert len(expected) > LIMIT
        assert sorted(there[expected[:LIMIT]]) == np.flatnonzero(own).tolist()


def test_roi_align_reads_what_mmcv_reads(case):
    graph, image, session = case
    read = session.run(['read', 'read_from_centres'], {'image': image.numpy()})
    rois = torch.cat([torch.cat((torch.full((40, 1), float(index)), graph.boxes + index), 1)
                      for index in range(len(image))])
    for found, ratio, aligned in zip(read, (0, 2), (True, False), strict=True):
        expected = of_mmcv(image, rois, (BINS, BINS), SCALE, ratio, 'avg', aligned)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(found).max() > 0.5


def test_nothing_to_keep():
    boxes, scores = torch.zeros(1, 4, 4), torch.full((1, 4), -1.0)
    assert not kept_by_nms(boxes, scores, THRESHOLD, LIMIT).any()
