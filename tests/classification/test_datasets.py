"""The data sets, read from tiny archives in their official layouts."""

import lzma
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
from archives import CLASSES, pixels, write_cifar10, write_idx, write_image

import mmkd  # noqa: F401  (before mmdet)
from mmkd.classification.data import (
    CIFAR10,
    CIFAR100,
    SVHN,
    FashionMNIST,
    ImageFolderInMemory,
    ImageNetFolder,
    TinyImageNet,
)
from mmkd.classification.data import images as images_module
from mmkd.classification.data.pickles import load_arrays
from mmkd.errors import UserError

pytestmark = pytest.mark.filterwarnings('ignore:.*differ from the published')


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(url, path, *_, **__):
        raise OSError('no network in tests')
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)


@pytest.fixture
def batches(tmp_path):
    """The folder of a CIFAR-10."""
    write_cifar10(tmp_path)
    return tmp_path / 'cifar-10-batches-py'


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_cifar10(tmp_path, protocol):
    rows = write_cifar10(tmp_path, protocol=protocol)
    train, test = CIFAR10(str(tmp_path)), CIFAR10(str(tmp_path), 'test')
    assert (len(train), len(test)) == (20, 4)
    assert train.metainfo == dict(classes=CLASSES)
    for i in range(20):
        data, labels = rows[f'data_batch_{i // 4 + 1}']
        # A row is the red plane, the green one, the blue one, each line by line.
        batch = train[i]
        assert batch['inputs'].shape == (1, 3, 32, 32) and batch['inputs'].dtype == torch.uint8
        assert batch['inputs'][0, 1, 5, 7] == data[i % 4, 1024 + 5 * 32 + 7]
        assert batch['data_samples'].labels.tolist() == [labels[i % 4]]
    assert test.images.numpy().tobytes() == rows['test_batch'][0].tobytes()


def test_a_pickle_that_python_2_wrote():
    # What Python 2's cPickle and NumPy 1.x write for dict(data=uint8 array, labels=[6, 9]).
    raw = bytes(range(6))
    content = (b'\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03'
               b'cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86'
               b'cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff'
               b'J\xff\xff\xff\xffK\x00tb\x89U\x06' + raw + b'tbU\x06labels]q\x08(K\x06K\teu.')
    loaded = load_arrays(content, 'x')
    assert loaded[b'data'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded[b'labels'] == [6, 9]


@pytest.mark.parametrize('array', [
    np.arange(6, dtype=np.int64).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype='>i4'), np.zeros((0, 3), np.uint8)])
@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_arrays_come_back_as_they_were(array, protocol):
    loaded = load_arrays(pickle.dumps({'x': array}, protocol), 'x')['x']
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype.kind == array.dtype.kind


class _Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(('function', 'name'), [
    (exec, 'builtins.exec'), (getattr, 'builtins.getattr'), (pickle.loads, '_pickle.loads'),
    (np.load, 'numpy.load')])
def test_an_evil_pickle_runs_nothing(tmp_path, batches, function, name):
    marker = tmp_path / 'ran'
    content = {b'data': _Evil(function, f'open({str(marker)!r}, "w")')}
    (batches / 'data_batch_2').write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=rf"data_batch_2 asks for '{name}'"):
        CIFAR10(str(tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize('array', [np.array([{}, None], dtype=object), np.zeros(2, 'i4,O'),
                                   np.array(['a'])])
def test_arrays_of_anything_but_numbers_are_refused(array):
    with pytest.raises(UserError, match=r"(array of type|asks for 'numpy)"):
        load_arrays(pickle.dumps({'x': array}, 2), 'the file')


@pytest.mark.parametrize('damage', [
    lambda content: b'<html>', lambda content: pickle.dumps([1, 2]),
    lambda content: content.replace(b'labels', b'babels'),
    lambda content: pickle.dumps({b'data': pixels(3), b'labels': [0, 1]}),
    lambda content: pickle.dumps({b'data': pixels(2)[:, :99], b'labels': [0, 1]}),
    lambda content: pickle.dumps({b'data': b'x', b'labels': [0, 1]}),
    lambda content: pickle.dumps({b'data': pixels(2), b'labels': ['a', None]}),
    lambda content: pickle.dumps({b'data': pixels(2), b'labels': [[0], [1]]}),
    lambda content: pickle.dumps({b'data': pixels(2), b'labels': [0, 2 ** 70]}),
    lambda content: pickle.dumps({b'data': pixels(2), b'labels': [0, 3]})])
def test_a_damaged_batch_is_one_clear_error(tmp_path, batches, damage):
    path = batches / 'data_batch_3'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r'official file'):
        CIFAR10(str(tmp_path))


@pytest.mark.parametrize('names', [None, 3, [b'\xff', b'dog', b'owl']])
def test_damaged_names_of_classes_are_one_clear_error(tmp_path, batches, names):
    (batches / 'batches.meta').write_bytes(pickle.dumps({b'label_names': names}))
    with pytest.raises(UserError, match=r"batches.meta has no names .* 'label_names' .* official"):
        CIFAR10(str(tmp_path))


def test_every_truncation_of_a_batch_is_an_error():
    content = pickle.dumps({b'data': pixels(1)[:, :40], b'labels': [0]}, 2)
    for length in range(len(content)):
        with pytest.raises(UserError, match='the file'):
            load_arrays(content[:length], 'the file')


def test_a_missing_batch_is_named(tmp_path, batches):
    (batches / 'data_batch_3').unlink()
    with pytest.raises(UserError, match='lacks data_batch_3'):
        CIFAR10(str(tmp_path))


def test_cifar100_from_its_archive(tmp_path):
    folder = tmp_path / 'cifar-100-python'
    folder.mkdir()
    data = dict(train=(pixels(5), [0, 1, 2, 1, 0]), test=(pixels(2, 1), [2, 2]))
    for split, (images, labels) in data.items():
        batch = dict(data=images, fine_labels=labels, coarse_labels=[9] * len(labels))
        (folder / split).write_bytes(pickle.dumps(batch))
    (folder / 'meta').write_bytes(pickle.dumps(dict(fine_label_names=list(CLASSES))))
    with tarfile.open(tmp_path / 'cifar-100-python.tar.gz', 'w:gz') as tar:
        tar.add(folder, folder.name)
    shutil.rmtree(folder)
    for split, (images, labels) in data.items():
        dataset = CIFAR100(str(tmp_path), split)
        assert dataset.labels.tolist() == labels
        assert dataset.images.numpy().tobytes() == images.tobytes()
    assert not folder.exists()  # nothing is unpacked


@pytest.mark.parametrize('damage', [lambda content: content[:len(content) // 2],
                                    lambda content: b'no archive', lambda content: b'',
                                    lambda content: lzma.compress(content)[:60] + bytes(40)])
def test_a_damaged_archive(tmp_path, batches, damage):
    archive = tmp_path / 'cifar-10-python.tar.gz'
    with tarfile.open(archive, 'w:gz') as tar:
        tar.add(batches, batches.name)
    shutil.rmtree(batches)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(UserError, match=r'cifar-10-python.tar.gz (is damaged|lacks)'):
        CIFAR10(str(tmp_path))


def test_svhn(tmp_path):
    from scipy.io import savemat
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    savemat(tmp_path / 'test_32x32.mat',
            dict(X=images, y=np.array([[10], [1], [9], [10]], dtype=np.uint8)))
    dataset = SVHN(str(tmp_path), 'test')
    assert dataset.labels.tolist() == [0, 1, 9, 0]
    assert dataset.images[2, 1, 30, 4] == images[30, 4, 1, 2]
    assert dataset.metainfo['classes'] == tuple('0123456789')


def test_damaged_svhn(tmp_path):
    from scipy.io import savemat
    (tmp_path / 'test_32x32.mat').write_bytes(b'no matrix')
    with pytest.raises(UserError, match=r'test_32x32.mat is damaged'):
        SVHN(str(tmp_path), 'test')
    savemat(tmp_path / 'train_32x32.mat', dict(X=np.zeros((4, 4)), y=np.zeros((4, 1))))
    with pytest.raises(UserError, match=r'float64 images of shape \(4, 4\)'):
        SVHN(str(tmp_path))


def test_fashion_mnist(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / 't10k-images-idx3-ubyte.gz', images)
    write_idx(tmp_path / 't10k-labels-idx1-ubyte.gz', np.array([9, 0, 4], np.uint8))
    dataset = FashionMNIST(str(tmp_path), 'test')
    assert dataset.labels.tolist() == [9, 0, 4]
    assert dataset.images.shape == (3, 3, 32, 32)
    for channel in range(3):
        np.testing.assert_array_equal(dataset.images[:, channel, 2:30, 2:30], images)
    assert dataset.images.sum() == 3 * images.sum(dtype=np.int64)  # the border is black


@pytest.mark.parametrize('shape, damage, message', [
    ((3, 28, 28), lambda content: content[:-20], 't10k-images'),
    ((3, 28, 28), lambda content: b'', 't10k-images'),
    ((3, 28, 28), lambda content: b'no gzip', 't10k-images'),
    ((2, 28, 28), lambda content: content, r'2 images and .* 3 labels'),
    ((3, 27, 28), lambda content: content, 'no IDX file')])
def test_damaged_fashion_mnist(tmp_path, shape, damage, message):
    write_idx(tmp_path / 't10k-labels-idx1-ubyte.gz', np.zeros(3, np.uint8))
    path = tmp_path / 't10k-images-idx3-ubyte.gz'
    write_idx(path, np.zeros(shape, np.uint8))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        FashionMNIST(str(tmp_path), 'test')


def _square(value, size=8):
    return np.full((size, size, 3), value, np.uint8)


def _write_tiny(root):
    for i, wnid in enumerate(('n02', 'n01')):
        for k in range(3):
            write_image(root / f'train/{wnid}/images/{wnid}_{k}.JPEG', _square(100 * i + 10 * k))
    write_image(root / 'val/images/val_0.JPEG', _square(200))
    write_image(root / 'val/images/val_1.JPEG', _square(40))
    (root / 'val/val_annotations.txt').write_text(
        'val_0.JPEG\tn02\t0\t0\t5\t5\nval_1.JPEG\tn01\t0\t0\t5\t5\n')


def test_tiny_imagenet(tmp_path):
    """Unpacked from its archive, and then from the folder that this left."""
    _write_tiny(tmp_path / 'x/tiny-imagenet-200')
    shutil.make_archive(tmp_path / 'tiny-imagenet-200', 'zip', tmp_path / 'x')
    train = TinyImageNet(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'tiny-imagenet-200', 'tiny-imagenet-200.zip', 'x']
    assert train.metainfo['classes'] == ('n01', 'n02')
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (train.images[:, 0, 4, 4].int() - torch.tensor([100, 110, 120, 0, 10, 20])).abs() \
        .max() <= 2
    test = TinyImageNet(str(tmp_path), 'test', max_samples=5)
    assert test.labels.tolist() == [1, 0]
    assert (test.images[:, 0, 4, 4].int() - torch.tensor([200, 40])).abs().max() <= 2


def test_a_damaged_tiny_imagenet(tmp_path):
    (tmp_path / 'tiny-imagenet-200.zip').write_bytes(b'no archive')
    with pytest.raises(UserError, match='cannot be unpacked'):
        TinyImageNet(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['tiny-imagenet-200.zip']
    root = tmp_path / 'tiny-imagenet-200'
    _write_tiny(root)
    (root / 'val/val_annotations.txt').write_text('val_0.JPEG\tn02\nval_1.JPEG\tn77\n')
    with pytest.raises(UserError, match='known class in line 2'):
        TinyImageNet(str(tmp_path), 'test')
    (root / 'val/val_annotations.txt').write_bytes('val_0.JPEG\tn\xfc02\n'.encode('latin-1'))
    with pytest.raises(UserError, match=r"val_annotations\.txt' is no UTF-8 text \(byte 12 "):
        TinyImageNet(str(tmp_path), 'test')


def test_a_folder_of_images_in_memory(tmp_path):
    for split in ('train', 'val'):
        for i, name in enumerate(('b', 'a')):
            write_image(tmp_path / split / name / '0.png', _square(50 * i))
            write_image(tmp_path / split / name / '1.PNG', _square((50 * i + 7, 8, 9)))
    dataset = ImageFolderInMemory(str(tmp_path), 'test')
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.images[:, :, 3, 3].tolist() == [
        [50, 50, 50], [57, 8, 9], [0, 0, 0], [7, 8, 9]], 'red, green, blue'
    write_image(tmp_path / 'train/b/2.png', np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(UserError, match=r'2.png has 16 x 8 px .* give `image_size`'):
        ImageFolderInMemory(str(tmp_path))
    assert ImageFolderInMemory(str(tmp_path), image_size=4).images.shape == (5, 3, 4, 4)


def test_imagenet_folders(tmp_path):
    for place in ('train/n1', 'train/n2', 'val/n1', 'val/n2'):
        for k in range(2):
            write_image(tmp_path / f'{place}/{k}.JPEG', _square(60, 20))
    train = ImageNetFolder(str(tmp_path), image_size=14)
    batch = train.__getitems__([3, 0])
    assert batch['inputs'].shape == (2, 3, 14, 14) and batch['inputs'].dtype == torch.uint8
    assert batch['data_samples'].labels.tolist() == [1, 0]
    assert batch['data_samples'].indices.tolist() == [3, 0]
    test = ImageNetFolder(str(tmp_path), 'test', max_samples=2, image_size=14)
    assert test.labels.tolist() == [0, 1]
    assert test[1]['inputs'].shape == (1, 3, 14, 14)
    write_image(tmp_path / 'test/ILSVRC2012_test_1.JPEG', _square(60, 20))  # it has no labels
    assert ImageNetFolder(str(tmp_path), 'test').paths[0].endswith('val/n1/0.JPEG')
    (tmp_path / 'train/n2/1.JPEG').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'n2/1.JPEG does not decode'):
        train[3]


@pytest.mark.parametrize('size', [(40, 60), (60, 40), (32, 32), (37, 91)])
def test_center_crop_against_pillow(size):
    from PIL import Image
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    cropped = images_module.center_crop(image, 32, 28)
    scale = 32 / min(size)
    whole = Image.fromarray(image).resize((int(size[1] * scale), int(size[0] * scale)),
                                          Image.Resampling.BILINEAR)
    left, top = (round((side - 28) / 2) for side in whole.size)
    np.testing.assert_array_equal(cropped,
                                  np.asarray(whole.crop((left, top, left + 28, top + 28))))


def test_random_parts_have_the_area_and_the_ratio_asked_for():
    torch.manual_seed(0)
    parts = np.array([images_module._random_part(300, 400) for _ in range(3000)])
    top, left, height, width = parts.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 300).all() and (left + width <= 400).all()
    area, ratio = height * width / 120000, width / height
    assert 0.07 < area.min() < 0.1 and 0.9 < area.max() <= 1
    assert 0.73 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.36
    small = area < 0.5  # those that fit whatever their ratio
    assert abs(np.log(ratio[small]).mean()) < 0.02
    # Uniform in area: as many below 0.29 as from there to 0.5.
    assert (area[small] < 0.29).mean() == pytest.approx(0.5, abs=0.04)


def test_a_part_of_an_extreme_image_is_central():
    torch.manual_seed(0)
    assert images_module._random_part(4, 4000) == (0, 1997, 4, 5)
    assert images_module._random_part(4000, 4) == (1997, 0, 5, 4)


@pytest.mark.parametrize(('build', 'message'), [
    (lambda root: CIFAR10(root), 'cifar-10-python.tar.gz is missing'),
    (lambda root: SVHN(root), 'train_32x32.mat is missing'),
    (lambda root: FashionMNIST(root), 'train-images-idx3-ubyte.gz is missing'),
    (lambda root: TinyImageNet(root), 'tiny-imagenet-200.zip is missing'),
    (lambda root: ImageNetFolder(root), 'train is missing'),
    (lambda root: ImageFolderInMemory(root), 'train is missing'),
    (lambda root: CIFAR100(root, 'tset'), "split is 'tset'.* Did you mean 'test'"),
])
def test_where_there_is_no_data_the_layout_is_told(tmp_path, build, message):
    with pytest.raises(UserError, match=message) as caught:
        build(str(tmp_path / 'nowhere'))
    assert 'split' in message or 'expected layout' in str(caught.value)


def test_folders_that_do_not_belong_together(tmp_path):
    write_image(tmp_path / 'train/a/0.png', _square(0))
    write_image(tmp_path / 'val/b/0.png', _square(0))
    with pytest.raises(UserError, match='different class folders'):
        ImageNetFolder(str(tmp_path), 'test')
    (tmp_path / 'train/b').mkdir()
    with pytest.raises(UserError, match="class 'b'"):
        ImageNetFolder(str(tmp_path))
