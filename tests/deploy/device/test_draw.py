"""What is drawn where, and that pictures and videos are written whole or not at all."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from reference import detections, write_video

from mmkd.deploy import Classification
from mmkd.deploy.device.drawing import PictureWriter, draw
from mmkd.deploy.device.files import require_writable, written_atomically
from mmkd.deploy.device.sources import Frame, Sources
from mmkd.errors import UserError


def black(height=200, width=300):
    return np.zeros((height, width, 3), np.uint8)


def test_boxes_in_the_colour_of_their_class():
    image = black()
    picture = draw(image, detections((0.9, 0, 20, 60, 120, 150), (0.8, 1, 200, 60, 250, 190)),
                   ('disc', 'ring'))
    assert not image.any()
    first, second = picture[100, 20], picture[100, 200]
    assert first.any()
    assert second.any()
    assert (first != second).any()
    for x, y in ((120, 100), (70, 60), (70, 150)):
        np.testing.assert_array_equal(picture[y, x], first)
    assert not picture[100, 70].any()  # Not filled.
    assert picture[45:59, 20:60].any()  # The name above.
    np.testing.assert_array_equal(draw(image, detections(), ('disc',)), image)


def test_boxes_beyond_the_border():
    picture = draw(black(), detections((0.9, 0, -1e9, -5, 1e9, 500), (0.5, 0, 400, 400, 500, 500),
                                       (0.5, 0, -3e38, -3e38, 3e38, 3e38)), ('x' * 200,))
    assert picture.shape == (200, 300, 3)
    assert draw(black(1, 1), detections((0.9, 0, 0, 0, 1, 1)), ('disc',)).shape == (1, 1, 3)


def test_classes_are_written_into_the_corner():
    found = Classification(np.array([0.7, 0.2], np.float32), np.array([1, 0]))
    picture = draw(black(), found, ('cat', 'dog'))
    rows, columns = np.nonzero(picture.any(axis=2))
    assert 15 < rows.max() < 40
    assert columns.max() < 150


def test_pictures_keep_name_and_format(tmp_path):
    with PictureWriter(tmp_path / 'a/drawn') as writer:
        for name in ('x/1.png', 'y/1.png', 'y/2.JPG', '3.gif'):
            writer.write(Frame(Path(name), None, black()), black() + 9)
    assert sorted(path.name for path in (tmp_path / 'a/drawn').iterdir()) == [
        '1.png', '1_2.png', '2.jpg', '3.png']
    assert (cv2.imread(str(tmp_path / 'a/drawn/1_2.png')) == 9).all()


def test_videos(tmp_path):
    write_video(tmp_path / 'a.avi', [0, 30, 60, 90])
    write_video(tmp_path / 'b.avi', [0, 30])
    with PictureWriter(tmp_path / 'drawn') as writer:
        for frame in Sources([tmp_path / 'a.avi', tmp_path / 'b.avi', tmp_path / 'a.avi']):
            writer.write(frame, frame.image)
    drawn = Sources([tmp_path / 'drawn'])
    assert [(frame.path.name, frame.index) for frame in drawn] == [
        *(('a.mp4', i) for i in range(4)), *(('a_2.mp4', i) for i in range(4)),
        ('b.mp4', 0), ('b.mp4', 1)]
    video = cv2.VideoCapture(str(tmp_path / 'drawn/a.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    np.testing.assert_allclose([video.read()[1].mean() for _ in range(4)], [0, 30, 60, 90], atol=4)


def test_no_part_of_a_video_is_left_by_an_error(tmp_path):
    write_video(tmp_path / 'a.avi', [0, 30, 60, 90])
    with pytest.raises(ZeroDivisionError), PictureWriter(tmp_path / 'drawn') as writer:
        for frame in Sources([tmp_path / 'a.avi']):
            writer.write(frame, frame.image)
            if frame.index == 2:
                raise ZeroDivisionError
    assert list((tmp_path / 'drawn').iterdir()) == []


def test_sources_are_not_replaced(tmp_path):
    frame = Frame(tmp_path / 'x/1.png', None, black())
    with pytest.raises(UserError, match='would be replaced'):
        PictureWriter(tmp_path / 'y', [tmp_path / 'x/../y/1.png']).write(frame, black())
    assert list((tmp_path / 'y').iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    for make in (lambda path: PictureWriter(path), require_writable):
        with pytest.raises(UserError, match='cannot write'):
            make(tmp_path / 'file' / 'a.json')
    with pytest.raises(UserError, match=r'cannot write .* Is a directory'):
        require_writable(tmp_path)
    require_writable(tmp_path / 'new/a.json')
    assert list((tmp_path / 'new').iterdir()) == []


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'new/a.json'
    with written_atomically(path) as temporary:
        temporary.write_text('first')
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), written_atomically(path) as temporary:
        temporary.write_text('second')
        raise ZeroDivisionError
    assert [file.read_text() for file in path.parent.iterdir()] == ['first']
