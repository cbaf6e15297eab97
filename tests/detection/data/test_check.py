"""Checking, unpacking and splitting VOC data."""

import hashlib
import io
import tarfile

import pytest
from voc_layout import annotation, layout

from mmkd.detection.data import check
from mmkd.detection.data.check import check_voc, extract_voc, split_voc
from mmkd.errors import UserError


def voc(root, splits, name='cat'):
    """One object in each image of each split."""
    for split, images in splits.items():
        layout(root, dict.fromkeys(images, annotation((name, (1, 1, 9, 9), 0))), split=split)
    return root


def unlisted(root, count):
    """Images of no split."""
    voc(root, dict(train=[f'i{k}' for k in range(count)]))
    (root / 'ImageSets/Main/train.txt').unlink()
    return root


def problems(reports):
    return [problem for report in reports for problem in report.problems]


def test_it_counts_what_a_split_holds(tmp_path):
    root = voc(tmp_path, dict(train=['a', 'b', 'c', 'd'], test=['e']))
    (root / 'Annotations/b.xml').write_text(annotation(('dog', (1, 1, 9, 9), 1)))
    (root / 'Annotations/c.xml').write_text(annotation(('cat', (1, 1, 1, 9), 0)))
    train, test = check_voc(root)
    assert (train.name, train.images) == (f'{root} train', 4)
    assert train.objects == dict(cat=2, dog=1)
    assert train.difficult == 1
    assert train.empty_boxes == [f'cat in {root}/Annotations/c.xml']
    assert not train.unknown_classes
    assert test.objects == dict(cat=1)
    assert problems([train, test]) == []
    known, _ = check_voc(root, ['cat'])
    assert known.objects == dict(cat=2)
    assert known.unknown_classes == dict(dog=1)
    assert 'skipped, unknown class: dog 1' in str(known)


def test_it_names_every_missing_file(tmp_path):
    root = voc(tmp_path, dict(train=['a', 'b', 'c'], val=['d']))
    (root / 'JPEGImages/a.jpg').unlink()
    (root / 'Annotations/b.xml').unlink()
    (root / 'Annotations/c.xml').write_text('<annotation>')
    (root / 'ImageSets/Main/val.txt').write_text('')
    found = problems(check_voc(root))
    assert found[:2] == [f'missing image: {root}/JPEGImages/a.jpg',
                         f'missing annotation: {root}/Annotations/b.xml']
    assert f'{root}/Annotations/c.xml is not valid' in found[2]
    assert f'{root}/ImageSets/Main/val.txt lists no image' in found[3]
    assert len(found) == 4


def test_it_decodes_the_images_and_names_swapped_corners(tmp_path):
    root = voc(tmp_path, dict(train=['a', 'b', 'c', 'd'], val=['e'], trainval=['a', 'e']))
    (root / 'JPEGImages/a.jpg').write_text('no image, but a text')
    whole = (root / 'JPEGImages/b.jpg').read_bytes()
    (root / 'JPEGImages/b.jpg').write_bytes(whole[:-30])
    (root / 'JPEGImages/c.jpg').write_bytes(b'')
    (root / 'Annotations/d.xml').write_text(annotation(('cat', (1, 1, -5, 9), 0)))
    train, val, trainval = check_voc(root)
    starts = [f"image '{root}/JPEGImages/a.jpg' does not decode",
              f"image '{root}/JPEGImages/b.jpg' is cut off",
              f"image '{root}/JPEGImages/c.jpg' is empty",
              f'box with swapped corners: cat (1, 1, -5, 9) in {root}/Annotations/d.xml']
    assert len(train.problems) == 4
    for problem, start in zip(train.problems, starts, strict=True):
        assert problem.startswith(start)
    assert val.problems == []
    assert trainval.problems == train.problems[:1]
    assert train.empty_boxes == []


def test_a_long_list_is_cut_and_counted(tmp_path):
    root = voc(tmp_path, dict(train=[f'i{k:02}' for k in range(30)]))
    for k in range(25):
        (root / f'JPEGImages/i{k:02}.jpg').unlink()
    report, = check_voc(root)
    lines = str(report).splitlines()
    assert len(report.problems) == 25
    assert sum('missing image' in line for line in lines) == 20
    assert lines[-1] == '    ERROR ... and 5 more'


def test_a_folder_without_training_split(tmp_path):
    root = voc(tmp_path, dict(test=['a']))
    found, = problems(check_voc(root))
    assert 'train.txt does not exist' in found
    with pytest.raises(UserError, match=r'There is no folder .*none: name'):
        check_voc(tmp_path / 'none')


def test_no_known_class_and_a_repeated_name(tmp_path):
    root = voc(tmp_path, dict(train=['a']), name='cats')
    (root / 'ImageSets/Main/train.txt').write_text('a\na\n')
    assert problems(check_voc(root, ['cat', 'dog'])) == [
        'listed more than once: a',
        "no object of a known class (found: cats). Did you mean 'cat'?"]


def test_a_devkit_needs_both_years(tmp_path):
    devkit = tmp_path / 'VOCdevkit'
    voc(devkit / 'VOC2007', dict(trainval=['a'], test=['b']))
    reports = check_voc(devkit)
    assert [report.name for report in reports] == [
        f'{devkit}/VOC2007 trainval', f'{devkit}/VOC2007 test', f'{devkit}/VOC2012 trainval']
    found, = problems(reports)
    assert 'VOC2012/ImageSets/Main/trainval.txt does not exist' in found


def archive(path, members):
    with tarfile.open(path, 'w') as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo('VOCdevkit/VOC2007/link')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc'
        tar.addfile(link)
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A folder with two small archives whose MD5s are the expected ones."""
    folder = tmp_path / 'downloads'
    folder.mkdir()
    members = {
        'one.tar': {'VOCdevkit/VOC2007/Annotations/a.xml': b'a', 'VOCdevkit/../evil': b'x',
                    '/VOCdevkit/evil': b'x', 'evil': b'x'},
        'two.tar': {'VOCdevkit/VOC2007/Annotations/b.xml': b'b'}}
    monkeypatch.setattr(check, 'VOC_ARCHIVES', {
        name: (f'http://voc/{name}', archive(folder / name, content))
        for name, content in members.items()})
    return folder


def test_archives_are_unpacked_and_nothing_else_is_written(tmp_path, downloads):
    out = tmp_path / 'data' / 'VOCdevkit'
    assert extract_voc(downloads, out) == [downloads / 'one.tar', downloads / 'two.tar']
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*')
               if not path.is_dir() and path.parent != downloads}
    assert written == {'data/VOCdevkit/VOC2007/Annotations/a.xml',
                       'data/VOCdevkit/VOC2007/Annotations/b.xml'}
    assert (out / 'VOC2007/Annotations/b.xml').read_bytes() == b'b'


def test_a_missing_archive_is_named_with_its_address(tmp_path, downloads):
    (downloads / 'two.tar').unlink()
    with pytest.raises(UserError, match=r'1 of 2 .* are missing in .*: fetch http://voc/two\.tar'):
        extract_voc(downloads, tmp_path / 'out')
    assert (tmp_path / 'out/VOC2007/Annotations/a.xml').is_file()


def test_a_damaged_archive_is_refused_before_anything_is_written(tmp_path, downloads):
    with (downloads / 'two.tar').open('ab') as file:
        file.write(b'!')
    with pytest.raises(UserError, match=r'two\.tar is damaged .*again from http://voc/two\.tar'):
        extract_voc(downloads, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_split_is_complete_disjoint_and_repeatable(tmp_path):
    roots = [unlisted(tmp_path / folder, 40) for folder in ('one', 'two')]
    for root in roots:
        (root / 'JPEGImages/unlabelled.jpg').touch()
    assert split_voc(roots[0], 0.1, 0.25) == dict(train=26, val=4, trainval=30, test=10)
    lists = {path.stem: path.read_text().split()
             for path in (roots[0] / 'ImageSets/Main').iterdir()}
    assert sorted(lists['train'] + lists['val'] + lists['test']) == sorted(
        f'i{k}' for k in range(40))
    assert set(lists['trainval']) == set(lists['train'] + lists['val'])
    split_voc(roots[1], 0.1, 0.25)
    for split, names in lists.items():
        assert (roots[1] / f'ImageSets/Main/{split}.txt').read_text().split() == names


def test_another_seed_splits_otherwise_and_share_0_writes_no_list(tmp_path):
    tests = []
    for seed in (0, 1):
        root = unlisted(tmp_path / str(seed), 40)
        split_voc(root, 0, 0.5, seed)
        assert not (root / 'ImageSets/Main/val.txt').exists()
        tests.append((root / 'ImageSets/Main/test.txt').read_text())
    assert tests[0] != tests[1]


def test_lists_are_never_overwritten(tmp_path):
    root = voc(tmp_path, dict(train=['a', 'b']))
    with pytest.raises(UserError, match='ImageSets/Main has files already'):
        split_voc(root, 0.1, 0.1)
    assert (root / 'ImageSets/Main/train.txt').read_text() == 'a\nb\n'


@pytest.mark.parametrize('val, test', [(-0.1, 0.1), (0.5, 0.5), (float('nan'), 0.1)])
def test_impossible_shares(tmp_path, val, test):
    with pytest.raises(UserError, match='give two from 0 that sum to less than 1'):
        split_voc(tmp_path, val, test)


def test_too_few_images_to_split(tmp_path):
    with pytest.raises(UserError, match=r'has 1 images .*: too few to split'):
        split_voc(unlisted(tmp_path, 1), 0.1, 0.1)
    assert list((tmp_path / 'ImageSets/Main').iterdir()) == []


def test_another_layout_is_for_mmkd_new(tmp_path):
    from photo_folders import voc_folder
    with pytest.raises(UserError, match=r'has 0 images .*0 in JPEGImages, 3 .xml .*mmkd new /'):
        split_voc(voc_folder(tmp_path, count=3), 0.1, 0.1)
