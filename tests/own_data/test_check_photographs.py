"""Each kind of damage is named and left out."""

import pytest
from photo_folders import image

from mmkd.errors import UserError
from mmkd.own_data.check import check, settle_classes
from mmkd.own_data.photos import Box, Complaints, Found, Photo


def checked(root, *photos):
    found, complaints = Found('', list(photos)), Complaints()
    check(found, root, complaints)
    return found, complaints


def test_broken_images_are_left_out(tmp_path):
    image(tmp_path / 'whole.jpg')
    whole = (tmp_path / 'whole.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(whole[:-40])
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.png').write_bytes(b'')
    (tmp_path / 'link.jpg').symlink_to(tmp_path / 'nowhere.jpg')
    names = ['whole.jpg', 'cut.jpg', 'text.jpg', 'empty.png', 'link.jpg']
    found, complaints = checked(tmp_path, *map(Photo, map(tmp_path.joinpath, names)))
    assert [(photo.path.name, photo.size) for photo in found.photos] == [('whole.jpg', (40, 30))]
    assert complaints.counts == {'images that cannot be read, left out': 4}
    line, = complaints.lines()
    assert 'cut.jpg (is cut off)' in line and 'empty.png (is empty)' in line


@pytest.mark.parametrize(('corners', 'what', 'left'), [
    ((0, 0, 10, 10), None, (0, 0, 10, 10)),
    ((-1, 0, 40, 31), None, (0, 0, 40, 30)),  # counted from 0 or from 1
    ((20, 20, 10, 10), 'boxes that are upside down (the second corner before the first), left out',
     None),
    ((5, 5, 5, 10), 'boxes of less than one pixel, left out', None),
    ((50, 5, 60, 10), 'boxes outside of their image, left out', None),
    ((30, 20, 60, 25), 'boxes that reach beyond their image, clipped', (30, 20, 40, 25)),
    ((float('nan'), 0, 10, 10), 'boxes whose corners are no numbers, left out', None)])
def test_boxes(tmp_path, corners, what, left):
    image(tmp_path / '1.jpg')
    found, complaints = checked(tmp_path, Photo('1.jpg', [Box('cat', corners)], size=(40, 30)))
    assert [box.corners for box in found.photos[0].boxes] == ([] if left is None else [left])
    assert complaints.counts == ({} if what is None else {what: 1})


def test_shares_become_pixels_and_repeated_boxes_one(tmp_path):
    image(tmp_path / '1.jpg')
    same = [Box('cat', (0.25, 0.5, 0.5, 1.0))] * 2
    found, complaints = checked(tmp_path, Photo('1.jpg', same, relative=True))
    assert [box.corners for box in found.photos[0].boxes] == [(10, 15, 20, 30)]
    assert complaints.counts == {'boxes that come twice, left out once': 1}


def test_another_size_in_the_annotation_is_said(tmp_path):
    image(tmp_path / '1.jpg')
    found, complaints = checked(tmp_path, Photo('1.jpg', size=(30, 40)))
    assert found.photos[0].size == (40, 30)
    assert list(complaints.counts.values()) == [1]


def test_of_copies_the_test_image_stays(tmp_path):
    for name in ('a.png', 'b.png', 'c.png'):
        image(tmp_path / name, seed=0)
    image(tmp_path / 'other.png', seed=1)
    found, complaints = checked(tmp_path, Photo('a.png', split='train'),
                                Photo('b.png', split='test'), Photo('c.png', split='val'),
                                Photo('other.png', split='train'))
    assert [str(photo.path) for photo in found.photos] == ['b.png', 'other.png']
    assert complaints.counts == {'images that are a copy of another, left out': 2}


def named(*names):
    return Found('', [Photo('1.jpg', [Box(name, (0, 0, 9, 9)) for name in names])])


def test_classes_are_those_with_objects_or_those_asked_for():
    complaints = Complaints()
    assert settle_classes(named('dog', 'cat'), None, complaints) == ('cat', 'dog')
    found = named('dog', 'cat', 'dgo')
    found.classes = ['dog', 'none', 'cat', 'dgo']
    assert settle_classes(found, None, complaints) == ('dog', 'cat', 'dgo')
    assert complaints.counts == {'classes without an object, left out': 1}
    complaints = Complaints()
    found = named('dog', 'cat', 'cat', 'mouse')
    assert settle_classes(found, ['mouse', 'catt'], complaints) == ('mouse', 'catt')
    assert [box.name for box in found.photos[0].boxes] == ['mouse']
    first, second = complaints.lines()
    assert first.startswith('3 objects of classes that are not asked for, left out')
    assert "'catt' Did you mean 'cat'?" in second


@pytest.mark.parametrize(('names', 'misspelt'), [
    (['cat'] * 10 + ['cta'], True), (['cat', 'cat', 'Cat'], True), (['cat'] * 9 + ['cta'], False),
    (['RBC'] * 50 + ['WBC'], False), (['platelet'] * 10 + ['platelets'], True),
    (['class_1'] * 20 + ['class_2'], False)])
def test_misspelt_classes_are_named(names, misspelt):
    complaints = Complaints()
    settle_classes(named(*names), None, complaints)
    assert bool(complaints.counts) == misspelt


def test_nothing_left_is_an_error():
    with pytest.raises(UserError, match=r'Nothing is left to learn in 1 classes \(cat\)'):
        settle_classes(named('cat'), ['dog'], Complaints())
    with pytest.raises(UserError, match='no objects'):
        settle_classes(named(), None, Complaints())
