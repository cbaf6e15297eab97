"""Small data sets in VOC layout."""

from photo_folders import image


def annotation(*objects, size=(64, 48)):
    """Each object: name, four corners as VOC writes them, difficult."""
    nodes = ''.join(
        f'<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>'
        + ''.join(f'<{tag}>{value}</{tag}>'
                  for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), corners, strict=True))
        + '</bndbox></object>' for name, corners, difficult in objects)
    head = f'<size><width>{size[0]}</width><height>{size[1]}</height></size>' if size else ''
    return f'<annotation>{head}{nodes}</annotation>'


CAT = ('cat', (1, 1, 20, 30), 0)


def layout(root, annotations, suffix='.jpg', split='train'):
    """Write a data set: {image name: XML}."""
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in annotations.items():
        (root / 'Annotations' / f'{name}.xml').write_text(text)
        image(root / f'JPEGImages/{name}{suffix}', size=(64, 48))
    (root / f'ImageSets/Main/{split}.txt').write_text(''.join(f'{n}\n' for n in annotations))
    return root
