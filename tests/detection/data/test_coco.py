"""A COCO file that is damaged, or another file: one sentence, whatever MMDetection would raise."""

import json

import pytest

from mmkd.errors import UserError
from mmkd.registry import DATASETS

SPEC = dict(
    images=[dict(id=1, file_name='a.jpg', width=64, height=48)],
    annotations=[dict(id=1, image_id=1, category_id=7, bbox=[1, 2, 30, 40], area=1200, iscrowd=0)],
    categories=[dict(id=7, name='cat')])


def read(folder, content, classes=('cat', ), **options):
    (folder / 'train.json').write_bytes(content)
    return DATASETS.build(dict(
        type='CocoDataset', data_root=str(folder), ann_file='train.json', data_prefix=dict(img=''),
        metainfo=dict(classes=classes), pipeline=[], **options))


def changed(**parts):
    return json.dumps({key: value for key, value in (SPEC | parts).items()
                       if value is not None}).encode()


def test_a_whole_file_is_read_as_by_mmdetection(tmp_path, capsys):
    [image] = [read(tmp_path, changed()).get_data_info(0)]
    assert image['instances'] == [dict(bbox=[1, 2, 31, 42], bbox_label=0, ignore_flag=0)]
    assert (image['width'], image['height'], image['img_id']) == (64, 48, 1)
    assert capsys.readouterr() == ('', '')


TWO = [dict(id=7, name='cat'), dict(id=3, name='dog')]


@pytest.mark.parametrize('classes', [('cat', 'dog'), ('dog', 'cat'), ('cat', )])
def test_a_label_is_the_place_of_its_name(classes, tmp_path):
    [instance] = read(tmp_path, changed(categories=TWO), classes).get_data_info(0)['instances']
    assert classes[instance['bbox_label']] == 'cat'


def _refused(folder, content, message, *classes, **options):
    with pytest.raises(UserError, match=f"annotations '{folder}/train.json' {message}") as raised:
        read(folder, content, *classes, **options)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('categories, message', [
    (TWO, "have no category 'cta', but cat, dog: correct .* Did you mean 'cat'"),
    ([*TWO, dict(id=9, name='dog')], "have 2 categories 'dog': give each a name of its own")])
@pytest.mark.parametrize('test_mode', [True, False])
def test_classes_that_do_not_fit_the_categories(categories, message, test_mode, tmp_path):
    _refused(tmp_path, changed(categories=categories), message, ('dog', 'cta'),
             test_mode=test_mode)


OF_CAT = dict(id=1, image_id=1, category_id=7, area=9)


@pytest.mark.parametrize('content, message', [
    *((content, 'are no COCO JSON, or are damaged') for content in (
        changed()[:-30], b'', b'\xff\xfe\x00', b'[1, 2]', b'[' * 100_000,
        changed(images=[dict(file_name='a.jpg')]),
        changed(images=[dict(id=1, width=64, height=48)]), changed(annotations=[1]),
        changed(annotations=[dict(OF_CAT, bbox=[1, 2])]),
        changed(annotations=[dict(OF_CAT, bbox=None)]), changed(categories=None))),
    (changed(images=[]), 'list no images'), (changed(images=None), 'list no images'),
    (changed(categories=[dict(id=7, name='dog')]), 'have none of the classes cat')])
def test_a_damaged_file_is_one_sentence(content, message, tmp_path):
    _refused(tmp_path, content, message)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json' cannot be read \(No such file"):
        DATASETS.build(dict(type='CocoDataset', ann_file=str(tmp_path / 'nothing.json'),
                            data_prefix=dict(img='')))


def test_images_without_a_folder(tmp_path):
    with pytest.raises(UserError, match='does not say where its images lie'):
        DATASETS.build(dict(type='CocoDataset', ann_file=str(tmp_path / 'nothing.json')))
