"""100 classes of TinyImageNet at 32 px, made from a drawn archive of three classes."""

from pathlib import Path

import numpy as np
import pytest
from archives import write_image

import mmkd  # noqa: F401  (before mmdet)
from mmkd.classification.data import TinyImageNet100, tiny_imagenet
from mmkd.errors import UserError

TOOL = Path(__file__).parents[2] / 'tools/prepare_tiny_imagenet.py'
IMAGES = {'train': {'n01': 'ab', 'n02': 'cde', 'n03': 'f'}, 'val': {'n03': 'g', 'n01': 'h'}}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The archive, unpacked, and the images in it by name; n02 is not on the list."""
    listed = tmp_path / 'list.txt'
    listed.write_text('n01\tgoldfish, Carassius auratus\nn03\tnewt\n')
    monkeypatch.setattr(tiny_imagenet, '_LIST', listed)
    root, images, rows = tmp_path / 'tiny-imagenet-200', {}, []
    for split, classes in IMAGES.items():
        for wnid, names in classes.items():
            for name in names:
                # Means of multiples of 4 are whole numbers.
                images[name] = 4 * np.random.default_rng(ord(name)).integers(
                    0, 64, (64, 64, 3), dtype=np.uint8)
                folder = f'train/{wnid}/images' if split == 'train' else 'val/images'
                write_image(root / folder / f'{name}.png', images[name])
                if split == 'val':
                    rows.append(f'{name}.png\t{wnid}\t0\t0\t62\t62\n')
    (root / 'val/val_annotations.txt').write_text(''.join(rows))
    return tmp_path, images


def test_the_listed_classes_are_halved_and_read(drawn, load_tool, capsys):
    root, images = drawn
    load_tool(TOOL)(root)
    assert capsys.readouterr().out.splitlines() == [
        f'{root}/tiny_imagenet100_32px/train: 3 images',
        f'{root}/tiny_imagenet100_32px/test: 2 images']
    for split, names, labels in (('train', 'abf', [0, 0, 1]), ('test', 'hg', [0, 1])):
        dataset = TinyImageNet100(str(root), split)
        assert dataset.metainfo['classes'] == ('n01', 'n03')
        assert dataset.labels.tolist() == labels
        for name, image in zip(names, dataset.images.numpy(), strict=True):
            means = images[name].reshape(32, 2, 32, 2, 3).mean((1, 3))
            np.testing.assert_array_equal(image.transpose(1, 2, 0), means)
    assert len(TinyImageNet100(str(root), max_samples=2)) == 2
    with pytest.raises(UserError, match=r'tiny_imagenet100_32px is there already: remove it'):
        tiny_imagenet.make_tiny_imagenet100(root)


def test_nothing_is_left_of_a_copy_that_failed(drawn):
    root, _ = drawn
    (root / 'tiny-imagenet-200/train/n03/images/f.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'f\.png'):
        tiny_imagenet.make_tiny_imagenet100(root)
    assert not list(root.glob('tiny_imagenet100*'))


def test_a_class_that_the_archive_lacks(drawn):
    root, _ = drawn
    with open(root / 'list.txt', 'a') as file:
        file.write('n04\ttench\nn05\teel\n')
    with pytest.raises(UserError, match=r'lacks 2 of the 100 classes \(first: n04\)'):
        tiny_imagenet.make_tiny_imagenet100(root)


def test_a_copy_that_is_missing_or_of_other_classes(drawn):
    root, _ = drawn
    with pytest.raises(UserError, match=r'is missing: make it with .*prepare_tiny_imagenet.py'):
        TinyImageNet100(str(root))
    write_image(root / 'tiny_imagenet100_32px/train/n01/a.png', np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r'has not the classes of list\.txt'):
        TinyImageNet100(str(root))


def test_the_list_has_100_classes():
    names = tiny_imagenet.classes_of_100()
    assert len(names) == 100 and list(names) == sorted(names)
    assert all(wnid[0] == 'n' and len(wnid) == 9 and words for wnid, words in names.items())
