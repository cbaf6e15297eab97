"""Reading and scaling images, against mmcv and Pillow."""

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmkd.errors import UserError
from mmkd.images import load_image, read_image, resize_antialiased


def noise(height, width):
    generator = np.random.default_rng(height * 1000 + width)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.bmp', 'a.webp', 'grey.png', 'deep.png'])
def test_both_readers_see_the_pixels_of_mmcv(tmp_path, name):
    path = tmp_path / name
    image = noise(20, 30)
    cv2.imwrite(str(path), image[..., 0] if name == 'grey.png' else
                image.astype(np.uint16) * 257 if name == 'deep.png' else image)
    expected = mmcv.imread(str(path))
    np.testing.assert_array_equal(load_image(path), expected)
    np.testing.assert_array_equal(read_image(str(path)), expected)
    assert expected.shape == (20, 30, 3)


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held at 90 degrees.
    Image.fromarray(noise(20, 30)).save(tmp_path / 'a.jpg', exif=exif)
    assert load_image(tmp_path / 'a.jpg').shape == (30, 20, 3)
    np.testing.assert_array_equal(load_image(tmp_path / 'a.jpg'),
                                  mmcv.imread(str(tmp_path / 'a.jpg')))


@pytest.mark.parametrize('read', [load_image, lambda path: read_image(str(path))])
def test_files_that_are_refused(tmp_path, read):
    cv2.imwrite(str(tmp_path / 'a.jpg'), noise(50, 50))
    cv2.imwrite(str(tmp_path / 'a.png'), noise(50, 50))
    contents = {'empty.jpg': b'', 'text.jpg': b'no image', 'half.jpg': (tmp_path / 'a.jpg')
                .read_bytes()[:-300], 'half.png': (tmp_path / 'a.png').read_bytes()[:-300]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / 'folder.jpg').mkdir()
    for name, message in {'empty.jpg': 'is empty', 'text.jpg': 'does not decode',
                          'half.jpg': 'is cut off', 'half.png': 'is cut off',
                          'none.jpg': 'cannot be read', 'folder.jpg': 'cannot be read'}.items():
        with pytest.raises(UserError, match=rf'{name}.* {message}'):
            read(tmp_path / name)


@pytest.mark.parametrize('old', [(1, 1), (7, 5), (64, 48), (101, 37), (20, 300), (256, 256)])
@pytest.mark.parametrize('new', [(1, 1), (64, 48), (13, 90), (200, 150)])
def test_scaling_is_pillows(old, new):
    image = noise(*old)
    expected = mmcv.imresize(image, new[::-1], interpolation='bilinear', backend='pillow')
    scaled = resize_antialiased(image, new)
    assert scaled.dtype == np.uint8
    np.testing.assert_array_equal(scaled, expected)


@pytest.mark.parametrize('crop', [(1, 1), (3, 4), (8, 8), (9, 30)])
def test_the_crop_is_the_centre_of_the_whole(crop):
    image = noise(40, 70)
    whole = resize_antialiased(image, (17, 30))
    top, left = (round((side - part) / 2) for side, part in zip((17, 30), crop, strict=True))
    np.testing.assert_array_equal(resize_antialiased(image, (17, 30), crop),
                                  whole[top:top + crop[0], left:left + crop[1]])


def test_a_strip_that_would_fill_the_memory_is_refused():
    with pytest.raises(UserError, match='65500 x 2 is so narrow'):
        resize_antialiased(np.zeros((2, 65500, 3), np.uint8), (256, 256 * 32750), (224, 224))
