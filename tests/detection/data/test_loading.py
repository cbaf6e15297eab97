"""Images that load, and images that do not."""

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmkd.detection.data.loading import LoadImage
from mmkd.errors import UserError
from mmkd.registry import TRANSFORMS

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(suffix, image=IMAGE):
    return cv2.imencode(suffix, image)[1].tobytes()


JPEG, PNG, THUMBNAIL = encode('.jpg'), encode('.png'), encode('.jpg', IMAGE[:8, :8])
# A JPEG in front of whose image data lies a whole thumbnail, as cameras write it.
PHOTO = JPEG[:2] + b'\xff\xe1' + (len(THUMBNAIL) + 2).to_bytes(2, 'big') + THUMBNAIL + JPEG[2:]
BROKEN = {
    'empty.jpg': (b'', 'is empty'),
    'text.jpg': (b'<html>404</html>', 'does not decode'),
    'head.jpg': (JPEG[:40], 'is cut off'),
    'half.jpg': (JPEG[:len(JPEG) // 2], 'is cut off'),
    'photo.jpg': (PHOTO[:-len(JPEG) // 2], 'is cut off'),
    'half.png': (PNG[:len(PNG) // 2], 'is cut off'),
}


def test_it_is_registered_and_loads_a_png_exactly(tmp_path):
    (tmp_path / 'a.png').write_bytes(PNG)
    results = TRANSFORMS.build(dict(type='LoadImage'))(dict(img_path=str(tmp_path / 'a.png')))
    np.testing.assert_array_equal(results['img'], IMAGE)
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (40, 60)
    as_float = LoadImage(to_float32=True)(dict(img_path=str(tmp_path / 'a.png')))['img']
    assert as_float.dtype == np.float32
    np.testing.assert_array_equal(as_float, IMAGE)


@pytest.mark.parametrize('name', BROKEN)
def test_a_broken_image_is_named(tmp_path, name):
    assert cv2.imdecode(np.frombuffer(PHOTO, np.uint8), 1).shape == (40, 60, 3)
    content, words = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f'The file {path} {words}.*: replace it'):
        LoadImage()(dict(img_path=str(path)))
    assert LoadImage(ignore_empty=True)(dict(img_path=str(path))) is None


def test_a_missing_image_is_named(tmp_path):
    path = tmp_path / 'none.jpg'
    with pytest.raises(UserError, match=f'image {path} cannot be read .No such file'):
        LoadImage()(dict(img_path=str(path)))


def test_bytes_after_the_image_do_no_harm(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(JPEG + b'\0' * 100)
    loaded = LoadImage()(dict(img_path=str(tmp_path / 'a.jpg')))['img']
    np.testing.assert_array_equal(loaded, cv2.imdecode(np.frombuffer(JPEG, np.uint8), 1))


def test_the_error_survives_a_worker_process(tmp_path):
    path = str(tmp_path / 'none.jpg')
    in_a_worker = DataLoader([dict(img_path=path)], num_workers=1, batch_size=None,
                             collate_fn=LoadImage())
    with pytest.raises(UserError, match=path):
        next(iter(in_a_worker))


def test_the_size_of_the_image_counts_and_not_its_annotations(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, IMAGE)  # 60 x 40
    boxes = [[5, 5, 30, 30], [50, -2, 70, 45], [61, 5, 70, 30]]
    results = dict(img_path=path, width=80, height=40,
                   instances=[dict(bbox=box, bbox_label=k) for k, box in enumerate(boxes)])
    with pytest.warns(UserWarning, match=r'a\.png has 60 x 40 px and not 80 x 40 as'):
        results = LoadImage()(results)
    assert (results['width'], results['height']) == (60, 40)
    assert results['instances'] == [dict(bbox=[5, 5, 30, 30], bbox_label=0),
                                    dict(bbox=[50, 0, 59, 39], bbox_label=1)]


def test_a_right_size_leaves_the_boxes_alone(tmp_path, recwarn):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, IMAGE)
    instances = [dict(bbox=[5, 5, 60, 40], bbox_label=0)]
    assert LoadImage()(dict(img_path=path, width=60, height=40,
                            instances=instances))['instances'] is instances
    assert not recwarn.list
