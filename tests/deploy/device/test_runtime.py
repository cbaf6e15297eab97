"""The runtime without torch gives the boxes of MMDetection's own test pipeline."""

import cv2
import numpy as np
import onnx
import pytest
from handmade_models import DETECTOR, metadata, save
from reference import mmdet_predictions

from mmkd.deploy import Classification, Classifier, Detections, Detector, open_model
from mmkd.errors import UserError


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


def plain(blue, green, red, height=8, width=8):
    return np.full((height, width, 3), (blue, green, red), np.uint8)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_lists_names_and_threshold(exported, images):
    detector = Detector(exported.onnx, threads=1)
    assert detector.classes == ('disc', 'ring', 'star')
    pictures = [cv2.imread(str(path)) for path in images]
    found = detector(pictures)
    assert {type(one) for one in found} == {Detections}
    for one, image in zip(found, pictures, strict=True):
        alone = detector(image)
        np.testing.assert_allclose(one.boxes, alone.boxes, atol=1e-4)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-6)
        np.testing.assert_array_equal(one.labels, alone.labels)
    middle = float(np.sort(found[0].scores)[50])
    kept = detector(pictures[0], score_thr=middle)
    assert len(kept.boxes) == len(kept.scores) == len(kept.labels) == 50
    assert kept.scores.min() == pytest.approx(middle)
    assert detector([]) == []


@pytest.mark.parametrize('about', [
    dict(), dict(batch=1), dict(batch=2), dict(batch=5), dict(dynamic_size=True),
    dict(precision='float16'), dict(precision='float16', batch=2), dict(precision='int8')])
def test_every_kind_of_detector(tmp_path, about):
    detector = Detector(save(tmp_path / 'a.onnx', metadata(**about)))
    # 16 x 16 halves to 8 x 8; 4 x 8 stays, above 4 rows of padding, which halve the mean.
    images = [plain(0, 100, 200), plain(100, 50, 0, 16, 16), plain(20, 80, 40, 4, 8)]
    expected = [([2, 1], [2, 1], 8), ([1, 0.5], [0, 1], 16), ([0.4, 0.2], [1, 2], 8)]
    tolerance = 2e-3 if about.get('precision') == 'float16' else 1e-6
    for found, (logits, labels, side) in zip(detector(images), expected, strict=True):
        np.testing.assert_allclose(found.scores, sigmoid(logits), atol=tolerance)
        assert found.labels.tolist() == labels
        assert found.boxes.tolist() == [[0, 0, side, side]] * 2
        assert [part.dtype for part in found] == [np.float32, np.float32, np.int64]


def test_model_that_prepares_images_itself(tmp_path):
    detector = Detector(save(tmp_path / 'a.onnx', metadata(input_kind='image', batch=1)))
    first, second = detector([plain(0, 100, 200, 5, 9), plain(100, 50, 0, 30, 20)])
    np.testing.assert_allclose(first.scores, sigmoid([2, 1]), atol=1e-6)
    np.testing.assert_allclose(second.scores, sigmoid([1, 0.5]), atol=1e-6)
    # In pixels of the image already.
    assert first.boxes.tolist() == second.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    with pytest.raises(UserError, match='uint8 array'):
        detector(plain(0, 0, 0)[..., 0])
    with pytest.raises(UserError, match='too narrow'):
        detector(plain(0, 0, 0, 1, 1000))


def test_a_size_of_ones_own(tmp_path):
    about = metadata(dynamic_size=True, size_divisor=4)
    detector = Detector(save(tmp_path / 'a.onnx', about), input_size=[12, 16])
    # 6 x 4 in 12 x 16: twice as large, then half of the columns are padding.
    found = detector(plain(100, 0, 0, 6, 4))
    np.testing.assert_allclose(found.scores, sigmoid([0.5, 0]), atol=1e-6)
    assert found.boxes.tolist() == [[0, 0, 8, 6]] * 2
    with pytest.raises(UserError, match=r'multiples of 4 and not 10x16: give 8x16'):
        Detector(tmp_path / 'a.onnx', input_size=(10, 16))
    fixed = save(tmp_path / 'b.onnx', metadata())
    assert Detector(fixed, input_size=(8, 8)).metadata.input_size == (8, 8)
    with pytest.raises(UserError, match=r'takes 8x8 pixels .* and not 16x16: .* --dynamic-size'):
        Detector(fixed, input_size=(16, 16))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize('about', [dict(), dict(batch=2), dict(precision='float16')])
def test_classifier(tmp_path, about):
    about = metadata(task='classification', resize_mode='stretch', **about)
    classifier = Classifier(save(tmp_path / 'a.onnx', about), threads=1)
    images = [plain(0, 100, 200), plain(100, 50, 0, 16, 20), plain(50, 50, 50)]
    found = classifier(images)
    tolerance = 1e-3 if about.precision == 'float16' else 1e-6
    np.testing.assert_allclose(found[0].scores, softmax([2., 1, 0]), atol=tolerance)
    assert found[0].labels.tolist() == [2, 1, 0]
    np.testing.assert_allclose(found[1].scores, softmax([1., 0.5, 0]), atol=tolerance)
    assert found[1].labels.tolist() == [0, 1, 2]
    assert found[2].labels.tolist() == [0, 1, 2]  # Ties go to the first.
    best = classifier(images[0], topk=1)
    assert type(best) is Classification
    assert [part.dtype for part in best] == [np.float32, np.int64]
    assert (best.labels.tolist(), best.scores.shape) == ([2], (1,))


def test_as_many_images_at_once_as_the_model_and_the_memory_allow(tmp_path):
    def size(**about):
        return Detector(save(tmp_path / 'a.onnx', metadata(**about))).batch_size

    assert size(batch=3) == 3
    assert size(input_kind='image', batch=1) == 1
    assert size() == 64
    assert size(input_size=(512, 512), resize_to=(512, 512)) == 4
    assert size(input_size=(2048, 2048), resize_to=(2048, 2048)) == 1


def test_open_model(tmp_path):
    detector = save(tmp_path / 'a.onnx', metadata())
    classifier = save(tmp_path / 'b.onnx', metadata(task='classification', resize_mode='crop'))
    assert type(open_model(detector)) is Detector
    opened = open_model(str(classifier), threads=1)
    assert type(opened) is Classifier
    assert opened.classes == ('blue', 'green', 'red')
    assert opened(plain(0, 0, 100)).labels[0] == 2
    with pytest.raises(UserError, match=r'for classification and not .* mmkd.deploy.Classifier'):
        Detector(classifier)
    with pytest.raises(UserError, match=r'for detection and not .* mmkd.deploy.Detector'):
        Classifier(detector)


def test_results_that_are_no_numbers(tmp_path):
    graph = DETECTOR.format(type='float', number=1, n='n', h=8, w=8).replace(
        'Sigmoid (means)', 'Div (means, means)')
    detector = Detector(save(tmp_path / 'a.onnx', metadata(), graph))
    assert detector(plain(1, 1, 1)).scores.tolist() == [1, 1]
    with pytest.raises(UserError, match='not finite'):
        detector(plain(0, 0, 0))


def test_model_files_that_are_refused(exported, tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        Detector(tmp_path / 'none.onnx')
    content = exported.onnx.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 10):
        (tmp_path / 'half.onnx').write_bytes(content[:length])
        with pytest.raises(UserError, match=r'half.onnx. is truncated or no ONNX model'):
            Detector(tmp_path / 'half.onnx')


def rewrite(source, path, **entries):
    """Copy a model with other entries of its metadata, without those that are None."""
    model = onnx.load(source)
    props = {prop.key: prop.value for prop in model.metadata_props} | entries
    onnx.helper.set_model_props(
        model, {name: value for name, value in props.items() if value is not None})
    onnx.save(model, path)


def test_a_changed_model_is_refused(exported, tmp_path):
    """ONNX has no checksums: without the hash at its end another weight would be used."""
    content = bytearray(exported.onnx.read_bytes())
    weights = onnx.load(exported.onnx).graph.initializer
    weight = max((one.raw_data for one in weights), key=len)
    content[content.index(weight) + 3] ^= 64
    (tmp_path / 'a.onnx').write_bytes(content)
    with pytest.raises(UserError, match=r"a\.onnx' is not what mmkd wrote: .* take 'sha256' out"):
        Detector(tmp_path / 'a.onnx')
    rewrite(tmp_path / 'a.onnx', tmp_path / 'b.onnx', sha256=None)
    Detector(tmp_path / 'b.onnx')


@pytest.mark.parametrize('values', [dict(batch=2), dict(input_size=(8, 16)), dict(batch=0),
                                    dict(dynamic_size=True)])
def test_metadata_that_the_input_contradicts(tmp_path, values):
    values = dict(batch=3) | values
    graph = DETECTOR.format(type='float', number=1, n=3, h=8, w=8)
    save(tmp_path / 'a.onnx', metadata(**values), graph)
    with pytest.raises(UserError, match='does not take images as its metadata says'):
        Detector(tmp_path / 'a.onnx')


def test_metadata_that_is_no_text(tmp_path):
    path = save(tmp_path / 'a.onnx', metadata())
    path.write_bytes(path.read_bytes().replace(b'letterbox', b'letter\xffox'))
    with pytest.raises(UserError, match='has metadata that is no text'):
        Detector(path)


@pytest.mark.parametrize('value', [None, 'not JSON'])
def test_a_model_of_another_origin(exported, tmp_path, value):
    rewrite(exported.onnx, tmp_path / 'other.onnx', sha256=None, mean=value)
    with pytest.raises(UserError, match=r"no valid 'mean' .* not exported by this version of mmkd"):
        Detector(tmp_path / 'other.onnx')


def test_a_model_with_other_outputs_than_it_says(tmp_path):
    graph = DETECTOR.format(type='float', number=1, n='n', h=8, w=8)
    for change in (('image', 'picture'), ('boxes', 'corners_of_boxes')):
        save(tmp_path / 'a.onnx', metadata(), graph.replace(*change))
        with pytest.raises(UserError, match=r'input image and the outputs boxes, scores, labels'):
            Detector(tmp_path / 'a.onnx')


def test_threads_that_are_refused(tmp_path):
    with pytest.raises(UserError, match='0 threads'):
        Detector(save(tmp_path / 'a.onnx', metadata()), threads=0)


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
