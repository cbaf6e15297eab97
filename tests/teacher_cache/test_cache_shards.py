"""Shards: whole or refused, whatever happens to the file."""

import json
import os
import struct
import zlib

import numpy as np
import pytest

from mmkd.errors import UserError
from mmkd.teacher_cache.shards import BrokenShardError, Shard, entry_bytes, written_shard
from mmkd.teacher_cache.store import Contents, TeacherStore

DTYPES = ('float16', 'float32', 'float64', 'int32', 'int64', 'uint8')
SHAPES = ((), (0,), (1,), (3, 0, 2), (5,), (16,), (2, 3, 5, 7))


def _random(dtype, shape, seed):
    """Any bits there are, infinities and NaNs among them."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bits = np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)
    return bits.view(dtype).reshape(shape)


def _same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _write(path, entries, *owner):
    with written_shard(path, *owner) as writer:
        for arrays in entries:
            writer.add(arrays)


@pytest.fixture
def entries():
    """Three entries of two layouts."""
    return [[_random('float16', (4, 5), 0), _random('int32', (3,), 1)],
            [_random('float16', (4, 5), 2), _random('int32', (6,), 3)],
            [_random('float16', (4, 5), 4), _random('int32', (3,), 5)]]


def test_arrays_come_back_bit_for_bit(tmp_path):
    kinds = [(dtype, shape) for dtype in DTYPES for shape in SHAPES]
    entries = [[_random(*kind, seed) for kind in kinds] for seed in range(3)]
    entries += [[_random(*kind, 9)] for kind in kinds] + [[]]
    _write(tmp_path / 'a.shard', entries)
    shard = Shard(tmp_path / 'a.shard')
    assert len(shard) == len(entries)
    for number in np.random.default_rng(0).permutation(len(entries)):
        found = shard.read(number).arrays()
        assert all(map(_same, found, entries[number])) and len(found) == len(entries[number])


def test_arrays_that_are_no_piece_of_memory(tmp_path):
    whole = _random('int64', (6, 8), 0)
    views = [whole.T, whole[::2, ::3], whole[::-1]]
    _write(tmp_path / 'a.shard', [views])
    found = Shard(tmp_path / 'a.shard').read(0).arrays()
    assert [a.tolist() for a in found] == [a.tolist() for a in views]


def test_what_is_read_is_a_copy_at_multiples_of_16_bytes(tmp_path, entries):
    _write(tmp_path / 'a.shard', entries)
    shard = Shard(tmp_path / 'a.shard')
    entry = shard.read(0)
    assert all(start % 16 == 0 for *_, start in entry.layout)
    assert len(entry.data) == entry_bytes(entries[0]) == 48 + 16  # 40 and 12 bytes
    entry.data[:] = 0
    assert _same(shard.read(0).arrays()[0], entries[0][0])


def test_an_empty_shard(tmp_path):
    _write(tmp_path / 'a.shard', [])
    assert len(Shard(tmp_path / 'a.shard')) == 0


def test_cut_off_at_any_length(tmp_path, entries):
    _write(tmp_path / 'a.shard', entries)
    content = (tmp_path / 'a.shard').read_bytes()
    cut = tmp_path / 'cut.shard'
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(BrokenShardError, match=r'cut\.shard'):
            Shard(cut)
    cut.write_bytes(content[:len(content) // 2] + content)  # and a file that begins amid another
    with pytest.raises(BrokenShardError):
        Shard(cut)


def test_every_flipped_byte_is_found(tmp_path, entries):
    """In an entry when it is read, in the index when the file is opened."""
    _write(tmp_path / 'a.shard', entries)
    content = (tmp_path / 'a.shard').read_bytes()
    sizes = [entry_bytes(arrays) for arrays in entries]
    owners = np.repeat(range(len(entries)), sizes)
    other = tmp_path / 'b.shard'
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        other.write_bytes(damaged)
        if place >= len(owners):
            with pytest.raises(BrokenShardError, match=r'b\.shard'):
                Shard(other)
            continue
        shard = Shard(other)
        for number, arrays in enumerate(entries):
            if number == owners[place]:
                with pytest.raises(BrokenShardError, match=rf'entry {number} of .*b\.shard'):
                    shard.read(number)
            else:
                assert all(map(_same, shard.read(number).arrays(), arrays))


@pytest.mark.parametrize('content', [b'', b'no shard', b'a line of text\n' * 1000, bytes(4096)])
def test_another_file_is_no_shard(tmp_path, content):
    (tmp_path / 'a.shard').write_bytes(content)
    with pytest.raises(BrokenShardError):
        Shard(tmp_path / 'a.shard')


def test_the_format_is_the_one_described(tmp_path, entries):
    """Read the file by the module's docstring, with nothing of the module."""
    _write(tmp_path / 'a.shard', entries, 'mine')
    assert Shard(tmp_path / 'a.shard').owner == 'mine'
    content = (tmp_path / 'a.shard').read_bytes()
    begin, head, count, checksum = struct.unpack('<QQQI', content[-44:-16])
    index = content[begin:-44]
    assert count == 3 and zlib.crc32(index) == checksum
    assert json.loads(index[:head]) == dict(owner='mine', layouts=[
        [['float16', [4, 5]], ['int32', [3]]], [['float16', [4, 5]], ['int32', [6]]]])
    for (first, _), row in zip(entries, struct.iter_unpack('<qqqq', index[head:]), strict=True):
        own = content[row[0]:row[0] + row[1]]
        assert zlib.crc32(own) == row[2]
        assert own.startswith(first.tobytes())


@pytest.fixture
def store(tmp_path, entries):
    """A teacher's store of one view of three images in one shard, made anew."""
    made = TeacherStore(tmp_path / 'teacher', dict(weights='abc'), 3, 3)
    made.create(Contents(dict(neck='every number, float32'), dict(neck=1), dict(neck=['neck']),
                         ['cat'], [8, 8]))
    made.path(0, 0).parent.mkdir()
    _write(made.path(0, 0), entries, made.owner(0, 0))
    found = TeacherStore(tmp_path / 'teacher', dict(weights='abc'), 3, 3)
    found.load()
    return found


def test_a_description_that_was_changed(store):
    path = store.folder / 'made_from.json'
    path.write_text(path.read_text().replace('float32', 'float16'))
    with pytest.raises(UserError, match=r'does not describe a cache \(its checksum does not fit\)'):
        store.load()


def test_a_shard_with_fewer_images_since_it_was_looked_at(store, entries):
    assert store.missing([(0, 0)]) == ([], [])
    _write(store.path(0, 0), entries[:1], store.owner(0, 0))
    with pytest.raises(UserError, match=r'00000\.shard has another number of images\): delete'):
        store.read(2, 0)
    assert store.missing([(0, 0)])[0] == [(0, 0)]


def test_a_folder_in_the_place_of_a_shard(store):
    store.path(0, 0).unlink()
    store.path(0, 0).mkdir()
    with pytest.raises(UserError, match=r'Is a directory.*: delete .*00000\.shard and start again'):
        store.missing([(0, 0)])


def test_an_exception_leaves_what_was_there(tmp_path, entries):
    with pytest.raises(ZeroDivisionError), written_shard(tmp_path / 'a.shard') as writer:
        writer.add(entries[0])
        assert [p.name for p in tmp_path.iterdir()] != ['a.shard'], 'not there before it is whole'
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    _write(tmp_path / 'a.shard', entries[:1])
    with pytest.raises(ZeroDivisionError), written_shard(tmp_path / 'a.shard') as writer:
        writer.add(entries[1])
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ['a.shard']
    assert _same(Shard(tmp_path / 'a.shard').read(0).arrays()[0], entries[0][0])
    _write(tmp_path / 'a.shard', entries)
    assert len(Shard(tmp_path / 'a.shard')) == 3, 'a new one takes its place'


def test_an_open_shard_outlives_its_file(tmp_path, entries):
    """Whoever reads goes on while somebody else builds it anew."""
    _write(tmp_path / 'a.shard', entries)
    shard = Shard(tmp_path / 'a.shard')
    _write(tmp_path / 'a.shard', entries[:1])
    assert _same(shard.read(2).arrays()[0], entries[2][0])


def test_cut_off_since_it_was_opened(tmp_path):
    """To read a page that a mapped file has no more would end the process."""
    large = [[_random('float32', (4, 4096), i)] for i in range(3)]
    _write(tmp_path / 'a.shard', large)
    shard = Shard(tmp_path / 'a.shard')
    os.truncate(tmp_path / 'a.shard', 100)
    for number in range(3):
        with pytest.raises(BrokenShardError, match=r'a\.shard is cut off'):
            shard.read(number)


def test_a_head_that_nobody_writes(tmp_path):
    for head in (b'[]', b'{"owner": "a"}', b'{', b'{"owner": "a", "layouts": [[["int7", [1]]]]}'):
        tail = struct.pack('<QQQI', 0, len(head), 0, zlib.crc32(head)) + b'mmkd shard 2\n\0\0\0'
        (tmp_path / 'a.shard').write_bytes(head + tail)
        with pytest.raises(BrokenShardError, match='is not what mmkd writes'):
            Shard(tmp_path / 'a.shard')
