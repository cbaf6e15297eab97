"""What was found in a folder: photographs with their boxes or classes, and what is wrong."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ['Box', 'Complaints', 'Found', 'Photo']

FIRST = 3
"""So many names are said of each complaint."""


@dataclass
class Box:
    """An object: ``corners`` are x1, y1, x2, y2 in pixels from 0; an ignored one (a crowd, or hard
    to see) is neither learnt nor counted in the evaluation."""

    name: str
    corners: tuple[float, float, float, float]
    ignored: bool = False


@dataclass
class Photo:
    """An image: ``path`` from the folder, ``boxes`` (a detector's) or ``label`` (a classifier's).

    ``size`` is width and height in pixels: as the annotation has it, then the image's own.
    ``relative`` boxes have corners from 0 to 1.
    """

    path: Path
    boxes: list[Box] = field(default_factory=list)
    label: str | None = None
    split: str | None = None
    size: tuple[int, int] | None = None
    relative: bool = False


class Complaints:
    """What is wrong, each with the names of the files that it is wrong with."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, what: str, name: object, count: int = 1) -> None:
        """Note something, such as 'images without an annotation, left out', of a file."""
        self._names.setdefault(what, []).append(str(name))
        self.counts[what] += count

    def lines(self) -> Iterator[str]:
        """Yield a line for each, with the first names."""
        for what, names in self._names.items():
            first = list(dict.fromkeys(names))
            more = ', ...' if len(first) > FIRST else ''
            line = f'{self.counts[what]} {what}: {", ".join(first[:FIRST])}{more}'
            # Names in no encoding, and with line breaks in them.
            yield ' '.join(line.encode('utf-8', 'replace').decode().splitlines())


@dataclass
class Found:
    """A data set as it was recognised.

    ``layout`` says how; ``classes`` are their names in the order that the layout gives them, None
    where it has no order. All photographs have a label, or none has.
    """

    layout: str
    photos: list[Photo]
    classes: list[str] | None = None

    @property
    def is_classified(self) -> bool:
        """Whether it is for a classifier."""
        return any(photo.label is not None for photo in self.photos)

    def counts(self) -> Counter:
        """Return how many objects, or images, each class has."""
        if self.is_classified:
            return Counter(photo.label for photo in self.photos)
        return Counter(box.name for photo in self.photos for box in photo.boxes)
