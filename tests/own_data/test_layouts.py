"""Every layout is recognised, with numbers counted by hand."""

from pathlib import Path

import pytest
from photo_folders import coco, image, voc_folder, xml

from mmkd.errors import UserError
from mmkd.own_data.folder import Folder
from mmkd.own_data.layouts import recognise
from mmkd.own_data.photos import Complaints


def recognised(root):
    complaints = Complaints()
    found = recognise(Folder.of(root), complaints)
    return found, {str(photo.path): photo for photo in found.photos}, complaints


def boxes(photo):
    return [(box.name, *(round(corner, 3) for corner in box.corners)) for box in photo.boxes]


@pytest.mark.parametrize(('images', 'annotations'), [
    ('images', 'annotations'), ('JPEGImages', 'Annotations'), ('.', '.'), ('a/b', 'a/b'),
    ('images/left', 'annotations/left')])
def test_voc_beside_and_apart(tmp_path, images, annotations):
    image(tmp_path / images / '1.jpg')
    image(tmp_path / images / '2.JPG')
    image(tmp_path / images / 'x y ü.png')
    image(tmp_path / images / 'alone.png')
    for name in ('1', '2', 'x y ü'):
        xml(tmp_path / annotations / f'{name}.xml', ('cat', 1, 1, 11, 21), ('dog', 5, 6, 7, 8))
    xml(tmp_path / annotations / 'lost.xml', ('cat', 1, 1, 11, 21))
    found, photos, complaints = recognised(tmp_path)
    assert found.layout == 'VOC XML'
    assert found.counts() == dict(cat=3, dog=3)
    assert {Path(name).name for name in photos} == {'1.jpg', '2.JPG', 'x y ü.png'}
    # 1-based corners; the last pixel as MMDetection's VOC has it
    assert boxes(found.photos[0]) == [('cat', 0, 0, 10, 20), ('dog', 4, 5, 6, 7)]
    assert list(complaints.lines()) == [
        f"1 annotations without an image, left out: {Path(annotations, 'lost.xml')}",
        f"1 images without an annotation, left out: {Path(images, 'alone.png')}"]


def test_images_of_one_name_meet_the_annotation_of_their_own_folder(tmp_path):
    for side, box in (('left', (1, 1, 11, 11)), ('right', (1, 1, 21, 21))):
        image(tmp_path / f'images/{side}/1.jpg')
        xml(tmp_path / f'annotations/{side}/1.xml', ('cat', *box))
    _, photos, complaints = recognised(tmp_path)
    assert boxes(photos['images/left/1.jpg']) == [('cat', 0, 0, 10, 10)]
    assert boxes(photos['images/right/1.jpg']) == [('cat', 0, 0, 20, 20)]
    assert not complaints.counts


@pytest.mark.parametrize(('encoding', 'head'), [
    ('latin-1', '<?xml version="1.0" encoding="ISO-8859-1"?>'), ('utf-16', ''),
    ('utf-8-sig', ''), ('cp1252', '<?xml version="1.0" encoding="windows-1252"?>')])
def test_xml_of_other_encodings(tmp_path, encoding, head):
    image(tmp_path / '1.jpg')
    xml(tmp_path / '1.xml', ('Kühe', 1, 1, 11, 11), encoding=encoding, head=head)
    assert recognised(tmp_path)[0].counts() == {'Kühe': 1}


def test_broken_xml_is_named_and_its_image_left_out(tmp_path):
    for name, text in (('1', b'<annotation><object>'), ('2', b'<annotation>\xfc</annotation>')):
        image(tmp_path / f'{name}.jpg')
        (tmp_path / f'{name}.xml').write_bytes(text)
    voc_folder(tmp_path, 1)
    found, _, complaints = recognised(tmp_path)
    assert [str(photo.path) for photo in found.photos] == ['images/000.jpg']
    assert complaints.counts == {
        'annotations that cannot be read, left out with their image': 2,
        'images without an annotation, left out': 2}


def test_voc_lists_are_its_splits(tmp_path):
    voc_folder(tmp_path, 4)
    lists = tmp_path / 'ImageSets/Main'
    lists.mkdir(parents=True)
    for split, names in dict(train='000', trainval='000\n001', val='001', test='002').items():
        (lists / f'{split}.txt').write_text(names + '\n')
    (lists / 'cat_train.txt').write_text('003 -1\n')
    found = recognised(tmp_path)[0]
    assert [photo.split for photo in found.photos] == ['train', 'val', 'test', None]


def test_coco_in_one_file_with_crowds_and_numbers_of_its_own(tmp_path):
    for name in ('a.jpg', 'b.jpg', 'c.jpg'):
        image(tmp_path / 'images' / name)
    coco(tmp_path / 'labels.json', [(10, 'a.jpg'), (20, 'images/b.jpg'), (30, 'lost.jpg')],
         [(10, 7, [1, 2, 10, 5]), (10, 90, [0, 0, 4, 4], dict(iscrowd=1)), (20, 7, [0, 0, 9, 9]),
          (20, 3, [0, 0, 9, 9]), (30, 7, [0, 0, 9, 9]), (20, 7, [])],
         [(90, 'tree'), (7, 'dog'), (8, 'none')])
    found, photos, complaints = recognised(tmp_path)
    assert (found.layout, found.classes) == ('COCO JSON', ['dog', 'none', 'tree'])
    assert boxes(photos['images/a.jpg']) == [('dog', 1, 2, 11, 7), ('tree', 0, 0, 4, 4)]
    assert [box.ignored for box in photos['images/a.jpg'].boxes] == [False, True]
    assert boxes(photos['images/b.jpg']) == [('dog', 0, 0, 9, 9)]
    assert complaints.counts == {
        'annotations without an image, left out': 1,
        'objects of a category that is not listed, left out': 1,
        'objects without a box, left out': 1, 'images without an annotation, left out': 1}


def test_coco_with_a_file_for_each_split(tmp_path):
    for folder in ('train2017', 'val2017'):
        image(tmp_path / folder / '1.jpg')
        coco(tmp_path / f'annotations/instances_{folder}.json', [(1, '1.jpg')],
             [(1, 1, [0, 0, 5, 5])])
    coco(tmp_path / 'annotations/person_keypoints_train2017.json', [(1, '1.jpg')],
         [(1, 1, [0, 0, 5, 5])])
    _, photos, complaints = recognised(tmp_path)
    assert {name: (photo.split, len(photo.boxes)) for name, photo in photos.items()} == {
        'train2017/1.jpg': ('train', 1), 'val2017/1.jpg': ('val', 1)}
    assert not complaints.counts


def test_yolo_with_a_yaml(tmp_path):
    for split in ('train', 'valid'):
        image(tmp_path / split / 'images/1.jpg')
        (tmp_path / split / 'labels').mkdir(parents=True)
    # 40 x 30 px: centre (20, 15), 10 x 6 px, is (15, 12, 25, 18); in shares of the image
    (tmp_path / 'train/labels/1.txt').write_text('1 0.5 0.5 0.25 0.2\n')
    (tmp_path / 'valid/labels/1.txt').write_text('')
    (tmp_path / 'data.yaml').write_text('names: {0: cat, 1: big dog}\n')
    (tmp_path / 'README.txt').write_text('exported by a tool\n')
    found, photos, complaints = recognised(tmp_path)
    assert (found.layout, found.classes) == ('YOLO text', ['cat', 'big dog'])
    assert boxes(photos['train/images/1.jpg']) == [('big dog', 0.375, 0.4, 0.625, 0.6)]
    assert photos['train/images/1.jpg'].relative
    assert photos['valid/images/1.jpg'].boxes == []
    assert [photo.split for photo in found.photos] == ['train', 'val']
    assert not complaints.counts


@pytest.mark.parametrize('names', [
    '5', 'cat', '{0: cat, 100000000000: dog}', '{0: cat, x: dog}', '[cat, [dog]]', '{-1: cat}',
    '[2020-99-99]', pytest.param('[' * 3000, id='deep'), '[&a [x, x], [*a, *a]]', '[cat, null]'])
def test_yolo_with_names_that_are_none(tmp_path, names):
    image(tmp_path / 'images/1.png')
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels/1.txt').write_text('0 0.5 0.5 0.5 0.5\n')
    (tmp_path / 'data.yaml').write_text(f'names: {names}\n')
    found, _, complaints = recognised(tmp_path)
    assert [box.name for photo in found.photos for box in photo.boxes] == ['class_0']
    assert 'YAML files that cannot be read, left out: data.yaml' in ' '.join(complaints.lines())


def test_yolo_beside_the_images_with_odd_lines(tmp_path):
    for i in range(3):
        image(tmp_path / f'{i}.jpg')
    (tmp_path / 'classes.txt').write_text('cat\ndog\n')
    (tmp_path / '0.txt').write_text('0 .5 .5 .2 .2 0.93\n2 .5 .5 .2 .2\n-1 .5 .5 .2 .2\nhello\n')
    (tmp_path / '1.txt').write_text('1 .1 .2 .5 .2 .3 .8\n')  # an outline
    (tmp_path / 'lost.txt').write_text('0 .5 .5 .2 .2\n')
    _, photos, complaints = recognised(tmp_path)
    assert boxes(photos['0.jpg']) == [('cat', 0.4, 0.4, 0.6, 0.6)]
    assert boxes(photos['1.jpg']) == [('dog', 0.1, 0.2, 0.5, 0.8)]
    assert complaints.counts == {
        'objects of a class number above 1 or below 0, left out': 2,
        'lines with a sixth number (a score?), which is not used': 1,
        'lines that are not `class x y width height`, left out': 1,
        'annotations without an image, left out': 1, 'images without an annotation, left out': 1}


def test_a_folder_for_each_class(tmp_path):
    for name in ('cat/1.jpg', 'cat/deep/2.jpg', 'big dog/1.jpg', 'outside.jpg'):
        image(tmp_path / 'photos' / name)
    found, photos, complaints = recognised(tmp_path)
    assert found.is_classified
    assert found.counts() == {'cat': 2, 'big dog': 1}
    assert photos['photos/cat/deep/2.jpg'].label == 'cat'
    assert complaints.counts == {'images outside of the class folders, left out': 1}


def test_a_folder_for_each_class_in_splits(tmp_path):
    for name in ('train/cat/1.jpg', 'train/dog/1.jpg', 'val/cat/2.jpg', 'val/dog/2.jpg'):
        image(tmp_path / name)
    _, photos, _ = recognised(tmp_path)
    assert {name: (photo.label, photo.split) for name, photo in photos.items()} == {
        'train/cat/1.jpg': ('cat', 'train'), 'train/dog/1.jpg': ('dog', 'train'),
        'val/cat/2.jpg': ('cat', 'val'), 'val/dog/2.jpg': ('dog', 'val')}


@pytest.mark.parametrize('images', ['', 'images'])
def test_nothing_understood_says_what_was_seen(tmp_path, images):
    image(tmp_path / images / '1.jpg')
    image(tmp_path / images / '.hidden.jpg')
    (tmp_path / 'shapes.json').write_text('{"shapes": []}')
    (tmp_path / 'notes.txt').write_text('12 photographs')
    with pytest.raises(UserError, match=r'1 images, 0 \.xml, 1 \.json, 1 \.txt.*VOC XML, COCO'):
        recognised(tmp_path)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(UserError, match='There is no folder'):
        Folder.of(tmp_path / 'absent')
    with pytest.raises(UserError, match='0 images, 0'):
        recognised(tmp_path)
    coco(tmp_path / 'a.json', [(1, 'a.jpg')], [])
    (tmp_path / 'a.json').write_text((tmp_path / 'a.json').read_text().replace('file_name', 'f'))
    with pytest.raises(UserError, match=r"a\.json' has an entry that is not COCO's"):
        recognised(tmp_path)
