"""Which pictures are read, in which order, and what is skipped."""

import cv2
import numpy as np
import pytest
from reference import write_video

from mmkd.deploy.device.sources import Sources, video_fps
from mmkd.errors import UserError


def write_image(path, level=0):
    cv2.imwrite(str(path), np.full((8, 8, 3), level, np.uint8))


def names(sources):
    return [(frame.path.name, frame.index) for frame in sources]


def test_files_and_folders_in_order(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'deeper').mkdir(parents=True)
    for name in ['b.JPG', 'a.png', '.hidden.png', 'deeper/c.png']:
        write_image(folder / name)
    (folder / 'notes.txt').write_text('not an image')
    write_image(tmp_path / 'z.bmp', 7)
    sources = Sources([str(tmp_path / 'z.bmp'), folder])
    assert names(sources) == [('z.bmp', None), ('a.png', None), ('b.JPG', None)]
    assert next(iter(sources)).image.tolist() == np.full((8, 8, 3), 7).tolist()
    assert len(sources.files) == 3
    assert sources.skipped == {}


@pytest.mark.parametrize('name', ['clip.mp4', 'clip.avi'])
def test_frames_of_a_video(tmp_path, name):
    write_video(tmp_path / name, [10, 20, 30, 40, 50])
    write_image(tmp_path / 'a.png')
    sources = Sources([tmp_path])
    assert names(sources) == [('a.png', None), *((name, i) for i in range(5))]
    levels = [frame.image.mean() for frame in sources if frame.index is not None]
    np.testing.assert_allclose(levels, [10, 20, 30, 40, 50], atol=5)
    assert video_fps(tmp_path / name) == pytest.approx(5)
    assert sources.skipped == {}


def test_what_does_not_decode_is_skipped_and_named(tmp_path):
    for name in 'abc':
        write_image(tmp_path / f'{name}.png')
    content = (tmp_path / 'b.png').read_bytes()
    (tmp_path / 'b.png').write_bytes(content[:-20])
    (tmp_path / 'notes.txt').write_text('not an image')
    (tmp_path / 'v.mp4').write_bytes(b'not a video')
    sources = Sources([tmp_path, tmp_path / 'notes.txt'])
    for _ in range(2):  # Counted anew each time.
        assert names(sources) == [('a.png', None), ('c.png', None)]
        assert {path.name: reason.partition("' ")[2].partition(':')[0]
                for path, reason in sources.skipped.items()} == {
            'b.png': 'is cut off', 'notes.txt': 'does not decode',
            'v.mp4': 'cannot be opened, it is damaged or of a kind that this OpenCV does not read'}
        assert all(str(path) in reason for path, reason in sources.skipped.items())


def test_a_video_that_was_cut_off(tmp_path):
    write_video(tmp_path / 'clip.avi', [*range(10, 201, 10), *range(10, 201, 10)])
    content = (tmp_path / 'clip.avi').read_bytes()
    (tmp_path / 'clip.avi').write_bytes(content[:len(content) // 2])
    sources = Sources([tmp_path / 'clip.avi'])
    count = len(list(sources))
    assert 5 < count < 30
    assert f'ends after {count} of 40 frames' in sources.skipped[tmp_path / 'clip.avi']


def test_paths_that_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none.jpg' does not exist"):
        Sources([tmp_path / 'none.jpg'])
    (tmp_path / 'deeper').mkdir()
    write_image(tmp_path / 'deeper/a.png')
    with pytest.raises(UserError, match=r'holds no image or video .*not searched'):
        Sources([tmp_path])
