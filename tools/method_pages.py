r"""Write the pages of the methods: docs/methods/*.md, and a README beside each method's config.

    python tools/method_pages.py

What a page says is written in one place each: what a method is, its paper where the loss does not
name it, and when to use it, in the comment at the top of its config; formula and paper in the
docstring of its loss; what it gained in the tables of docs/results.md.
"""

import argparse
import inspect
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mmkd  # noqa: F401  (before anything of mmdet)
from mmkd.config_files import read_config
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError
from mmkd.files import write_atomically
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[1]
PAGES = Path('docs/methods')
RESULTS = Path('docs/results.md')
SETTINGS = Path('docs/settings.md')
UNMEASURED = 'not measured yet'
GAIN = 'gain, 95 % interval'


class Kind(NamedTuple):
    """The methods of one folder of configs."""

    page: str
    title: str
    folder: str
    command: str
    """``{}`` is the name of the method."""


KINDS = (
    Kind('detectors', 'Between detectors', 'configs/_base_/distillation',
         'mmkd train STUDENT.py --teacher TEACHER.py=TEACHER.pth --method {}'),
    Kind('classification', 'Between classifiers', 'configs/classification/methods',
         'mmkd train classifier --data cifar100 --student resnet8x4 --teacher resnet32x4 '
         '--method {}'),
    Kind('selfdistill', 'One classifier, without a teacher', 'configs/selfdistill/methods',
         'mmkd train selfdistill --data cifar100 --student resnet32 --method {}'),
    Kind('online', 'Several classifiers, without a teacher', 'configs/online/methods',
         'mmkd train online --data cifar100 --members resnet32,resnet32 --method {}'),
)
CELLS = 'Blood cells (BCCD) at 160 px'
RETINANETS = 'RetinaNets: the same cells, exact boxes'
GFLS = 'GFLs: the same cells, exact boxes'
RETINANETS_PHOTOGRAPHS = 'RetinaNets: the same photographs'
PHOTOGRAPHS = 'Photographs: people and animals of PASCAL VOC 2012 at 160 px'
DRAWN = 'Drawn images: `make demo`'
MEASURED = dict(
    bckd=[(GFLS, 'by BCKD')],
    crosskd=[(GFLS, 'by CrossKD'), (GFLS, 'by CrossKD, 30 % of the gradient')],
    fgd=[(RETINANETS, 'by FGD'), (RETINANETS_PHOTOGRAPHS, 'by FGD')],
    joint=[(CELLS, 'ResNet-18, two teachers'), (CELLS, 'MobileNetV2, two teachers'),
           (PHOTOGRAPHS, 'MobileNetV2, from two teachers'),
           (PHOTOGRAPHS, 'ResNet-18, from two teachers'), (DRAWN, 'from both')],
    ld=[(GFLS, 'by LD'), (GFLS, 'by LD, 30 % of the gradient')],
    pkd=[(RETINANETS, 'by PKD'), (RETINANETS_PHOTOGRAPHS, 'by PKD'),
         ('From a RetinaNet and a CenterNet at once', 'CenterNet-R18, from the RetinaNet')],
    source=[(CELLS, "ResNet-18, two teachers, the source's reading"),
            (CELLS, "MobileNetV2, two teachers, the source's reading"),
            (PHOTOGRAPHS, "MobileNetV2, two teachers, the source's reading"),
            (PHOTOGRAPHS, "ResNet-18, two teachers, the source's reading"),
            (DRAWN, "from both, the source's recipe (seeds 0, 1, 2)")],
)
"""By the name of a method between detectors: rows of docs/results.md, by heading and first cell.
No method between classifiers has one yet."""


class Loss(NamedTuple):
    """What the docstring of a loss says."""

    name: str
    formula: str
    source: str


class Method(NamedTuple):
    """What a page says of a method."""

    name: str
    kind: Kind
    what: str
    when: str
    paper: str
    losses: list[Loss]
    gains: list[dict[str, str]]


def methods_of(kind: Kind) -> list[Method]:
    """Return the methods of a folder, by name."""
    return [_method(path, kind) for path in sorted((ROOT / kind.folder).glob('*.py'))]


def _method(path: Path, kind: Kind) -> Method:
    text = path.read_text(encoding='utf-8')
    comment = ' '.join(line[2:] for line in re.match(r'(#.*\n)*', text)[0].splitlines())
    what, when_mark, when = comment.partition(' When: ')
    what, _, paper = what.removeprefix(f'{path.stem}: ').partition(' Paper: ')
    if not when_mark:
        raise UserError(f"'{path}' does not say when to use the method: end the comment at its top "
                        "with '# When: ...'")
    terms = read_config(path).get('terms') or {}
    losses = [_loss(name) for name in dict.fromkeys(term.loss.type for term in terms.values())]
    rows = MEASURED.get(path.stem, ()) if kind.page == 'detectors' else ()
    return Method(path.stem, kind, what, when, paper, losses,
                  [_results()[place] | dict(heading=place[0]) for place in rows])


def _loss(name: str) -> Loss:
    docstring = inspect.getdoc(MODELS.get(name))
    formula = re.search(r'``(L(?:_\w+)? = .*?)``', docstring, re.S)
    source = re.search(r'^Source: (.*?)(?=\n\n(?:Args|Raises|=|$)|\Z)', docstring, re.M | re.S)
    return Loss(name, ' '.join(formula[1].split()), _markdown(source[1]))


def _markdown(text: str) -> str:
    text = ' '.join(text.partition('\n\n')[0].split())
    if text.endswith(':'):  # a table or a list follows, which stays in the docstring
        text = text.rpartition('. ')[0] + '.'
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?(\w+)`', r'`\1`', text)
    text = re.sub(r'\bdoi (10\.[\w./]+\w)', r'[doi \1](https://doi.org/\1)', text)
    text = re.sub(r'arXiv (\d{4}\.\d{4,5})', r'[arXiv \1](https://arxiv.org/abs/\1)', text)
    return text.replace('``', '`')


@cache
def _results() -> dict[tuple[str, str], dict[str, str]]:
    """Return the rows of docs/results.md that have a gain, by heading and first cell."""
    rows, heading, header = {}, '', []
    for line in (ROOT / RESULTS).read_text(encoding='utf-8').splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if line.startswith('#'):
            heading = line.lstrip('# ')
        if not line.startswith('|'):
            header = []
        elif not header:
            header = cells
        elif GAIN in header:
            row = dict(zip(header, cells, strict=False))
            rows[heading, cells[0]] = dict(
                row=cells[0], measure=header[1], mean=cells[1], gain=row[GAIN],
                seeds=str(row['each seed'].count(',') + 1))
    return rows


def pages() -> dict[Path, str]:
    """Return every page by its path from the root."""
    kinds = {kind: methods_of(kind) for kind in KINDS}
    made = {PAGES / 'index.md': _index(kinds)}
    for kind, methods in kinds.items():
        made[PAGES / f'{kind.page}.md'] = _page(kind, methods)
        readme = Path(kind.folder, 'README.md')
        made[readme] = (f'{_note(readme)}\n# {kind.title}\n\n'
                        f'The methods of this folder; choose one by `--method NAME`:\n\n'
                        f'    {kind.command.format("NAME")}\n\n'
                        + _table(methods, os.path.relpath(PAGES, readme.parent) + '/'))
    return made


def _note(path: Path) -> str:
    made_from = 'the configs, the docstrings of the losses and docs/results.md'
    return f'<!-- Made by tools/method_pages.py from {made_from}: change those. -->\n'


def _index(kinds: dict[Kind, list[Method]]) -> str:
    parts = [_note(PAGES), '# Methods', '',
             'Every published method that mmkd has, with its paper, what it gained here, and when '
             'to use it. The gain is that of the first study in the order of each page, in points '
             'of the measure, over the same student alone, with the 95 % interval of the paired '
             'differences over the seeds. `mmkd methods` lists those between detectors with what '
             'each needs.', '']
    for kind, methods in kinds.items():
        parts += [f'## {kind.title}', '', _table(methods, '')]
    return '\n'.join(parts).rstrip() + '\n'


def _table(methods: list[Method], pages: str) -> str:
    lines = ['| method | paper | gain | when to use it |', '| --- | --- | --- | --- |']
    for method in methods:
        gain = method.gains[0] if method.gains else None
        measured = (f'{gain["measure"]} {gain["gain"]}' if gain
                    else UNMEASURED if method.losses else '')
        lines.append(f'| [`{method.name}`]({pages}{method.kind.page}.md#{method.name}) '
                     f'| {_short_paper(method)} | {measured} | {method.when} |')
    return '\n'.join(lines) + '\n'


def _short_paper(method: Method) -> str:
    if method.paper:
        return method.paper.partition('; ')[0].rstrip('.')
    return '; '.join(dict.fromkeys(_title(loss.source) for loss in method.losses))


def _title(source: str) -> str:
    """Return the title of the first paper that is named, with the link that its sentence has."""
    found = re.search(r'"([^"]+?),?"(.*?)(?:[.:] [A-Z]|$)', source)
    place = re.search(r'\(https://[^)]+\)', found[2])
    return f'[{found[1]}]{place[0]}' if place else found[1]


def _page(kind: Kind, methods: list[Method]) -> str:
    parts = [_note(PAGES), f'# {kind.title}', '',
             f'Each is a file of `{kind.folder}/`; all methods in one table: [Methods](index.md).',
             '']
    for method in methods:
        parts += _section(method)
    return '\n'.join(parts).rstrip() + '\n'


def _section(method: Method) -> Iterator[str]:
    yield from (f'## {method.name}', '', method.what, '', f'**When to use it**: {method.when}', '',
                f'    {method.kind.command.format(method.name)}', '')
    for loss in method.losses:
        link = os.path.relpath(SETTINGS, PAGES) + f'#mmkd.distillation.losses.{loss.name}'
        yield from (f'[`{loss.name}`]({link}), where the letters are explained:', '',
                    f'    {loss.formula}', '')
    if method.paper:
        yield from (f'**Paper**: {method.paper}', '')
    for loss in method.losses:
        of = f', for `{loss.name}`' if len(method.losses) > 1 else ''
        yield from (f'**Source**{of}: {loss.source}', '')
    if not method.losses:
        return
    yield '**Measured**' + ('' if method.gains else f': {UNMEASURED}.')
    yield ''
    if method.gains:
        yield f'| study | row | measure | seeds | mean | {GAIN} |'
        yield '| --- | --- | --- | --- | --- | --- |'
        for row in method.gains:
            link = os.path.relpath(RESULTS, PAGES) + '#' + _anchor(row['heading'])
            yield (f'| [{row["heading"]}]({link}) | {row["row"]} | {row["measure"]} '
                   f'| {row["seeds"]} | {row["mean"]} | {row["gain"]} |')
        yield ''


def _anchor(heading: str) -> str:
    """Return what a heading is called in a link, by GitHub and by mkdocs."""
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


@user_errors()
def main(argv: list[str] | None = None) -> None:
    """Write the pages."""
    arguments().parse_args(argv)
    for path, text in pages().items():
        write_atomically(ROOT / path, text.encode())


if __name__ == '__main__':
    main()
