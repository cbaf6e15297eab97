"""Small folders of photographs whose content is written by hand."""

import json

import cv2
import numpy as np

XML = ('<annotation><size><width>{w}</width><height>{h}</height></size>{objects}</annotation>')
OBJECT = ('<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>'
          '<ymax>{}</ymax></bndbox></object>')


def image(path, seed=None, size=(40, 30)):
    """Write noise of ``size`` (width, height); other names give other noise."""
    seed = sum(map(ord, str(path.name))) * 1000 + len(str(path)) if seed is None else seed
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), noise)[1].tobytes())


def xml(path, *objects, size=(40, 30), encoding='utf-8', head=''):
    """Write a VOC annotation; an object is a name and xmin, ymin, xmax, ymax."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = head + XML.format(w=size[0], h=size[1],
                             objects=''.join(OBJECT.format(*one) for one in objects))
    path.write_bytes(text.encode(encoding))


def voc_folder(root, count=10, name='cat'):
    """Write images/ and annotations/ with one object of 10 x 10 pixels in each."""
    for i in range(count):
        image(root / f'images/{i:03}.jpg', seed=i)
        xml(root / f'annotations/{i:03}.xml', (name, 6, 6, 16, 16))
    return root


def coco(path, images, annotations, categories=((1, 'cat'),)):
    """Write COCO JSON: (id, file name), (image, category, box[, more]) and (id, name)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(
        images=[dict(id=i, file_name=name, width=40, height=30) for i, name in images],
        annotations=[dict(id=n, image_id=one[0], category_id=one[1], bbox=one[2],
                          **(one[3] if len(one) > 3 else {}))
                     for n, one in enumerate(annotations, 1)],
        categories=[dict(id=i, name=name) for i, name in categories])))


def contents(root):
    """Every file below a folder with its bytes."""
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob('*'))
            if path.is_file()}
