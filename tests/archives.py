"""Tiny archives in the official layouts, for tests only."""

import gzip
import pickle
import struct

import cv2
import numpy as np

CLASSES = ('cat', 'dog', 'owl')


def pixels(count, seed=0):
    """Return `count` CIFAR rows: 3 x 32 x 32 bytes, channel by channel."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(root, per_batch=4, protocol=2):
    """Write a CIFAR-10 folder of five batches and a test batch; return all rows by file."""
    folder = root / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    rows = {}
    for seed, name in enumerate([f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']):
        rows[name] = pixels(per_batch, seed), [(seed + i) % 3 for i in range(per_batch)]
        batch = {b'data': rows[name][0], b'labels': rows[name][1], b'batch_label': b'x'}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    (folder / 'batches.meta').write_bytes(
        pickle.dumps({b'label_names': [name.encode() for name in CLASSES]}, protocol))
    return rows


def write_idx(path, array):
    """Write a gzipped IDX file of bytes."""
    head = struct.pack(f'>BBBB{array.ndim}I', 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


def write_image(path, rgb):
    """Write an H x W x 3 RGB array, without loss if the suffix is .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, content = cv2.imencode(path.suffix.lower(), rgb[..., ::-1])
    assert ok
    path.write_bytes(content.tobytes())
