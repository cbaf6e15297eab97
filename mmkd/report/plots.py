"""Plots as SVG inside a page: sharp at any size, with the page's own colour of text."""

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

__all__ = ['class_colours', 'colours_of', 'confusion', 'drawing', 'lines', 'svg']

INK = '#010203'
"""Stands for the colour of the page's text until the SVG is in the page."""
STYLE = {'svg.fonttype': 'none', 'font.size': 9, 'axes.titlesize': 9, 'text.color': INK,
         'axes.labelcolor': INK, 'axes.edgecolor': INK, 'xtick.color': INK, 'ytick.color': INK,
         'axes.spines.top': False, 'axes.spines.right': False, 'lines.linewidth': 1.5,
         'legend.frameon': False, 'legend.fontsize': 8}
MOST_NUMBERS = 20
"""Classes of a confusion whose cells have numbers in them."""
_numbers = itertools.count()

Points = tuple[Sequence[float], Sequence[float]]


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name that is seen on white and on black."""
    wheel = ['#3b82c4', '#e07b39', '#3fa66b', '#c65b9b', '#8a7bd8', '#b59a2b', '#2ba3a3', '#d4554f',
             '#7f8a94', '#9b6b4a']
    return {name: wheel[i % len(wheel)] for i, name in enumerate(names)}


@contextmanager
def drawing(width: float, height: float) -> Iterator[Drawing]:
    """Give a figure in the style of the page, sizes in inches; make its SVG inside."""
    with rc_context(STYLE):
        yield Drawing(figsize=(width, height), layout='constrained')


def svg(figure: Drawing) -> str:
    """Return a figure as an element of a page, with names of parts that no other one has."""
    file = io.BytesIO()
    figure.savefig(file, format='svg', transparent=True,
                   metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')))
    text = file.getvalue().decode()
    text = text[text.index('<svg'):]
    text = re.sub(r'<metadata>.*?</metadata>|<style type="text/css">.*?</style>', '', text,
                  flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', text, count=1)
    prefix = f'f{next(_numbers)}-'
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(url\(|xlink:href=")#', rf'\1#{prefix}', text)
    return text.replace(INK, 'currentColor')


def lines(series: Mapping[str, Points], colours: Mapping[str, str], x: str = 'epoch',
          y: str = '', legend: bool = False) -> str:
    """Draw lines, or points where a line has one.

    Args:
        series: x and y values by name.
        colours: by name.
        x: what stands below.
        y: what stands at the side.
        legend: whether the names stand in it.
    """
    with drawing(3.4, 2.3) as figure:
        axes = figure.subplots()
        for name, (xs, ys) in series.items():
            axes.plot(xs, ys, color=colours[name], label=name,
                      marker='.' if len(xs) < 3 else None)
        axes.set(xlabel=x, ylabel=y)
        if x == 'epoch':
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.margins(x=0.02)
        if legend:
            axes.legend()
        return svg(figure)


def confusion(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Draw how often what (rows) was taken for what (columns), shaded by the share of the row."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(rows) <= MOST_NUMBERS
    size = max(3.2, 1.6 + 0.42 * len(columns)) if few else 6.5
    font = min(8 * size / 3.2, 12)  # the page shows all sizes as wide
    with drawing(size, size) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
        axes.set_xlabel('predicted', fontsize=font)
        axes.set_ylabel('true', fontsize=font)
        axes.tick_params(labelsize=font)
        if few:
            axes.set_xticks(range(len(columns)), columns, rotation=45, ha='right')
            axes.set_yticks(range(len(rows)), rows)
            for i, j in np.argwhere(counts):
                axes.text(j, i, f'{counts[i, j]:.0f}', ha='center', va='center', fontsize=font,
                          color='white' if shares[i, j] > 0.5 else 'black')
        return svg(figure)


def class_colours(count: int) -> list[tuple[float, ...]]:
    """Return a colour for each of some classes."""
    return [tuple(colour) for colour in
            colormaps['tab10' if count <= 10 else 'gist_rainbow'].resampled(max(10, count))(
                range(count))]
