"""Overlaps of two boxes given by their corners, in plain Python."""


def _area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlaps(a, b):
    """IoU and GIoU."""
    common = _area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    hull = _area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    union = _area(a) + _area(b) - common
    return common / union, common / union - (hull - union) / hull
