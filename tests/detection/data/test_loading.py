"""Images that load, and images that do not."""

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import mmkd  # noqa: F401
from mmkd.detection.data.loading import LoadImage
from mmkd.errors import UserError
from mmkd.registry import TRANSFORMS


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(image, suffix):
    return cv2.imencode(suffix, image)[1].tobytes()


def test_it_is_registered_and_loads_a_png_exactly(tmp_path, image):
    (tmp_path / 'a.png').write_bytes(encode(image, '.png'))
    results = TRANSFORMS.build(dict(type='LoadImage'))(dict(img_path=str(tmp_path / 'a.png')))
    np.testing.assert_array_equal(results['img'], image)
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (40, 60)
    as_float = LoadImage(to_float32=True)(dict(img_path=str(tmp_path / 'a.png')))['img']
    assert as_float.dtype == np.float32
    np.testing.assert_array_equal(as_float, image)


def broken_files(image):
    jpeg, png = encode(image, '.jpg'), encode(image, '.png')
    # A JPEG in front of whose image data lies a whole thumbnail, as cameras write it.
    thumbnail = encode(image[:8, :8], '.jpg')
    exif = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    photo = jpeg[:2] + exif + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(photo, np.uint8), 1).shape == (40, 60, 3)
    return {
        'empty.jpg': (b'', 'is empty'),
        'text.jpg': (b'<html>404</html>', 'does not decode'),
        'head.jpg': (jpeg[:40], 'is cut off'),
        'half.jpg': (jpeg[:len(jpeg) // 2], 'is cut off'),
        'photo.jpg': (photo[:-len(jpeg) // 2], 'is cut off'),
        'half.png': (png[:len(png) // 2], 'is cut off'),
    }


@pytest.mark.parametrize('name', ['empty.jpg', 'text.jpg', 'head.jpg', 'half.jpg', 'photo.jpg',
                                  'half.png'])
def test_a_broken_image_is_named(tmp_path, image, name):
    content, words = broken_files(image)[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f'The file {path} {words}.*: replace it'):
        LoadImage()(dict(img_path=str(path)))
    assert LoadImage(ignore_empty=True)(dict(img_path=str(path))) is None


def test_a_missing_image_is_named(tmp_path):
    path = tmp_path / 'none.jpg'
    with pytest.raises(UserError, match=f'image {path} cannot be read .No such file'):
        LoadImage()(dict(img_path=str(path)))


def test_bytes_after_the_image_do_no_harm(tmp_path, image):
    content = encode(image, '.jpg')
    (tmp_path / 'a.jpg').write_bytes(content + b'\0' * 100)
    loaded = LoadImage()(dict(img_path=str(tmp_path / 'a.jpg')))['img']
    np.testing.assert_array_equal(loaded, cv2.imdecode(np.frombuffer(content, np.uint8), 1))


class _OneImage(Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return LoadImage()(dict(img_path=self.path))


def test_the_error_survives_a_worker_process(tmp_path):
    path = str(tmp_path / 'none.jpg')
    with pytest.raises(UserError, match=path):
        next(iter(DataLoader(_OneImage(path), num_workers=1)))


def test_the_size_of_the_image_counts_and_not_its_annotations(tmp_path, image):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, image)  # 60 x 40
    boxes = [[5, 5, 30, 30], [50, -2, 70, 45], [61, 5, 70, 30]]
    results = dict(img_path=path, width=80, height=40,
                   instances=[dict(bbox=box, bbox_label=k) for k, box in enumerate(boxes)])
    with pytest.warns(UserWarning, match=r'a\.png has 60 x 40 px and not 80 x 40 as'):
        results = LoadImage()(results)
    assert (results['width'], results['height']) == (60, 40)
    assert results['instances'] == [dict(bbox=[5, 5, 30, 30], bbox_label=0),
                                    dict(bbox=[50, 0, 59, 39], bbox_label=1)]


def test_a_right_size_leaves_the_boxes_alone(tmp_path, image, recwarn):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, image)
    instances = [dict(bbox=[5, 5, 60, 40], bbox_label=0)]
    assert LoadImage()(dict(img_path=path, width=60, height=40,
                            instances=instances))['instances'] is instances
    assert not recwarn.list
