"""The parts of a report: titled panels of sentences, tables and figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mmkd.errors import UserError

__all__ = ['Figure', 'Panel', 'Table', 'panel']


@dataclass
class Figure:
    """A picture: ``markup`` is an SVG or an image whose data stands in its address."""

    caption: str
    markup: str
    wide: bool = False


@dataclass
class Table:
    """Rows of text below a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Panel:
    """One panel; what is missing is a sentence in it."""

    key: str
    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    colours: dict[str, str] = field(default_factory=dict)
    """By run the colour of its lines, for a legend above the figures."""


def panel(key: str, title: str, fill: Callable[[Panel], None]) -> Panel:
    """Make a panel by ``fill``; what goes wrong is a sentence in it."""
    made = Panel(key, title)
    try:
        fill(made)
    except UserError as error:
        made.sentences.append(f'Not shown: {error}.')
    except Exception as error:  # a page with a gap is better than none
        lines = str(error).strip().splitlines() or ['']
        made.sentences.append(f'Not shown: {type(error).__name__}: {lines[0][:300]}.')
    return made
