"""The runtime without torch gives the boxes of MMDetection's own test pipeline."""

import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmcv.transforms import Compose

from mmkd.deploy import Detections, Detector
from mmkd.errors import UserError


def mmdet_predictions(model, path):
    """The preprocessed input, the boxes in image pixels, and scores and labels."""
    sample = Compose(model.cfg.test_dataloader.dataset.pipeline)(
        dict(img_path=str(path), img_id=0))
    data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    inputs = model.data_preprocessor(data)['inputs'][0].numpy()
    with torch.no_grad():
        found = model.test_step(data)[0].pred_instances
    return inputs, found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy()


def matched(ours, theirs):
    """Order both by label and position, leaving out score 0, which means nothing."""
    for boxes, scores, labels in (ours, theirs):
        kept = np.flatnonzero(scores > 0)
        order = kept[np.lexsort((*boxes[kept].round(1).T, labels[kept]))]
        yield boxes[order], scores[order], labels[order]


def test_equals_mmdet_from_file_to_boxes(exported, images):
    detector = Detector(exported.onnx)
    for path in images:
        inputs, *theirs = mmdet_predictions(exported.model, path)
        image = cv2.imread(str(path))
        np.testing.assert_array_equal(detector.metadata.prepare(image)[0], inputs)
        ours = detector(image)
        assert len(ours.scores) == 100
        (boxes, scores, labels), expected = matched(ours, theirs)
        assert len(scores) > 10
        np.testing.assert_array_equal(labels, expected[2])
        np.testing.assert_allclose(boxes, expected[0], atol=1e-3)
        np.testing.assert_allclose(scores, expected[1], atol=1e-5)


def test_lists_names_and_threshold(exported, images):
    detector = Detector(exported.onnx, threads=1)
    assert detector.classes == ('disc', 'ring', 'star')
    first, second = (cv2.imread(str(path)) for path in images[:2])
    found = detector([first, second])
    assert [type(one) for one in found] == [Detections, Detections]
    for one, image in zip(found, (first, second), strict=True):
        np.testing.assert_array_equal(one.boxes, detector(image).boxes)
    middle = float(np.sort(found[0].scores)[50])
    kept = detector(first, score_thr=middle)
    assert len(kept.boxes) == len(kept.scores) == len(kept.labels) == 50
    assert kept.scores.min() == pytest.approx(middle)
    assert detector([]) == []


WITHOUT_TORCH = """
import sys
sys.modules['torch'] = sys.modules['mmengine'] = sys.modules['mmcv'] = None  # imports raise
import cv2, numpy as np
from mmkd.deploy import Detector
boxes, scores, labels = Detector(sys.argv[1])(cv2.imread(sys.argv[2]))
try:
    import torch
except ImportError:
    np.savez(sys.argv[3], boxes=boxes, scores=scores, labels=labels)
loaded = {name.partition('.')[0] for name, module in sys.modules.items() if module is not None}
assert not loaded & {'torch', 'mmengine', 'mmcv', 'mmdet'}, loaded
"""


def test_in_a_process_where_importing_torch_raises(exported, images, tmp_path):
    subprocess.run([sys.executable, '-c', WITHOUT_TORCH, str(exported.onnx), str(images[0]),
                    str(tmp_path / 'found.npz')], check=True)
    found = np.load(tmp_path / 'found.npz')
    theirs = mmdet_predictions(exported.model, images[0])[1:]
    ours, expected = matched((found['boxes'], found['scores'], found['labels']), theirs)
    np.testing.assert_array_equal(ours[2], expected[2])
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-3)
    np.testing.assert_allclose(ours[1], expected[1], atol=1e-5)


def test_model_files_that_are_refused(exported, tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        Detector(tmp_path / 'none.onnx')
    content = exported.onnx.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 10):
        (tmp_path / 'half.onnx').write_bytes(content[:length])
        with pytest.raises(UserError, match=r'half.onnx. is truncated or no ONNX model'):
            Detector(tmp_path / 'half.onnx')


@pytest.mark.parametrize('value', [None, 'not JSON'])
def test_a_model_of_another_origin(exported, tmp_path, value):
    model = onnx.load(exported.onnx)
    props = {prop.key: prop.value for prop in model.metadata_props}
    props.pop('mean')
    if value is not None:
        props['mean'] = value
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, props)
    onnx.save(model, tmp_path / 'other.onnx')
    with pytest.raises(UserError, match=r"no valid 'mean' .* not exported by mmkd"):
        Detector(tmp_path / 'other.onnx')


@pytest.mark.parametrize(('image', 'message'), [
    (None, 'this is NoneType'),
    (np.zeros((4, 4), np.uint8), r'this is uint8 \(4, 4\)'),
    (np.zeros((4, 4, 3), np.float32), 'this is float32'),
    (np.zeros((0, 4, 3), np.uint8), 'cv2.imread'),
    (np.zeros((1, 1000, 3), np.uint8), 'too narrow'),
])
def test_images_that_are_refused(exported, image, message):
    with pytest.raises(UserError, match=message):
        Detector(exported.onnx)(image)
