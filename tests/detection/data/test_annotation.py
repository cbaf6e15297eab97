"""Reading VOC's files."""

import pytest

from mmkd.detection.data.annotation import find_images, read_annotation, read_split
from mmkd.errors import UserError

OBJECT = ('<object><name>cat</name>{difficult}<bndbox><xmin>1</xmin><ymin>2.9</ymin>'
          '<xmax>30</xmax><ymax>40</ymax></bndbox></object>')
PLAIN = OBJECT.format(difficult='')


def write(tmp_path, text):
    path = tmp_path / 'a.xml'
    path.write_text(f'<annotation>{text}</annotation>')
    return path


def test_it_reads_size_box_and_difficult(tmp_path):
    size = '<size><width>64</width><height>48</height><depth>3</depth></size>'
    part = '<part><name>head</name><bndbox><xmin>5</xmin></bndbox></part>'  # as in VOC2012
    text = size + OBJECT.format(difficult='<difficult>1</difficult>').replace(
        '</object>', part + '</object>') + PLAIN
    annotation = read_annotation(write(tmp_path, text))
    assert annotation.size == (64, 48)
    assert [(o.name, o.box, o.difficult) for o in annotation.objects] == [
        ('cat', (1, 2, 30, 40), True), ('cat', (1, 2, 30, 40), False)]


@pytest.mark.parametrize('size', [
    '', '<size><width>0</width><height>0</height></size>', '<size><width>5</width></size>'])
def test_a_size_that_says_nothing_is_none(tmp_path, size):
    assert read_annotation(write(tmp_path, size)).size is None


@pytest.mark.parametrize('text', [
    '', *map('<annotation>{}</annotation>'.format, (
        '<object></annotation', '<object><name>cat</name></object>',
        PLAIN.replace('30', 'thirty'), PLAIN.replace('30', 'nan'), PLAIN.replace('30', 'inf'),
        PLAIN.replace('30', '1e300'), '<size><width>1e12</width><height>9</height></size>',
        PLAIN.replace('cat', ''), PLAIN.replace('<xmax>30</xmax>', ''))),
    *map('<?xml version="1.0" encoding="{}"?><annotation></annotation>'.format, (
        'klingon', 'rot13', 'hex', 'utf-7'))])
def test_what_is_not_valid_names_the_file(tmp_path, text):
    path = tmp_path / 'a.xml'
    path.write_text(text)
    with pytest.raises(UserError, match=f'annotation {path} is not valid: .*; repair it'):
        read_annotation(path)


def test_a_folder_in_the_place_of_an_annotation(tmp_path):
    (tmp_path / 'a.xml').mkdir()
    with pytest.raises(UserError, match=r'a\.xml cannot be read \(Is a directory\): put a file'):
        read_annotation(tmp_path / 'a.xml')


def test_a_split_may_come_from_windows(tmp_path):
    (tmp_path / 'train.txt').write_bytes('\ufeffone\r\n\r\ntwo words \r\n'.encode())
    assert read_split(tmp_path / 'train.txt') == ['one', 'two words']


def test_a_split_in_another_encoding(tmp_path):
    (tmp_path / 'train.txt').write_bytes('dog\nk\xe4fer\n'.encode('latin-1'))
    with pytest.raises(UserError, match=r"train\.txt' is no UTF-8 text \(byte 5 does not fit\)"):
        read_split(tmp_path / 'train.txt')


def test_names_that_are_no_file(tmp_path):
    for name in ('x' * 5000, 'a\0b', '.'):
        with pytest.raises(UserError, match='does not exist'):
            read_split(tmp_path / name)


def test_images_are_found_by_name_whatever_their_suffix(tmp_path):
    for name in ('a.png', 'a.jpg', 'b.JPG', 'c.d.jpeg', 'e.txt', 'f', 'g.png'):
        (tmp_path / name).touch()
    assert find_images(tmp_path) == {'a': 'a.jpg', 'b': 'b.JPG', 'c.d': 'c.d.jpeg',
                                     'g': 'g.png'}
    assert find_images(tmp_path / 'none') == {}
