"""The docs are a site without a broken link, and their commands are mmkd's."""

import re
import runpy
import shlex
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest

from mmkd.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


CALL = r'(?P<program>mmkd \w+|python tools/\w+\.py)(?P<rest>.*)'
BLOCK = re.compile(rf'^ {{4,}}(?:[A-Z_]+=\S+ )*{CALL}', re.M)
INLINE = re.compile(rf'`{CALL.replace(".*", "[^`]*")}`')


class Links(HTMLParser):
    """What a page loads from elsewhere."""

    def __init__(self):
        super().__init__()
        self.loaded = []

    def handle_starttag(self, tag, attrs):
        source = dict(attrs).get('href' if tag == 'link' else 'src')
        if tag in ('link', 'script', 'img') and source:
            self.loaded.append(source)


def test_the_site_is_built_without_a_warning(tmp_path, monkeypatch):
    build = pytest.importorskip('mkdocs.commands.build').build
    from mkdocs.config import load_config
    monkeypatch.chdir(ROOT)
    build(load_config('mkdocs.yml', site_dir=str(tmp_path)))  # which is strict
    page = (tmp_path / 'settings/index.html').read_text()
    assert 'PKDLoss' in page and ':class:' not in page
    links = Links()
    links.feed(page)
    assert links.loaded and not [one for one in links.loaded if one.startswith('http')]


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_what_a_page_names_is_there(page):
    text = page.read_text()
    named = re.findall(r'(?:configs|studies|tools|benchmarks|mmkd)/[\w/.]+\.(?:py|sh|md|csv)', text)
    links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', text)
    # What a reader would make is called `mine`.
    there = [ROOT / name for name in named if 'mine' not in name]
    there += [page.parent / link for link in links]
    assert not [path for path in there if not path.exists()]


def arguments_of(program):
    """The parser of `mmkd NAME` or `python tools/NAME.py`."""
    if program.startswith('mmkd '):
        return import_module(f'mmkd.commands.{program.split()[1]}').arguments()
    tool = runpy.run_path(str(ROOT / program.split()[1]))
    return (tool.get('arguments') or sys.modules[tool['main'].__module__].arguments)()


def wrong_commands(text):
    """What of a text could not be given: whole commands in blocks, options within sentences."""
    text = text.replace('\\\n', ' ')
    for call in BLOCK.finditer(text):
        try:
            words = shlex.split(call['rest'].replace('...', 'key=value'), comments=True)
            arguments_of(call['program']).parse_args(words)
        except (SystemExit, ImportError, OSError):
            yield call[0].strip()
    for call in INLINE.finditer(text):
        options = re.findall(r'(?<= )--[\w-]+', call['rest'])
        try:
            known = arguments_of(call['program'])._option_string_actions if options else options
        except (ImportError, OSError):
            known = ()
        if not set(options) <= set(known):
            yield call[0]


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_commands_of_a_page_can_be_given(page):
    assert list(wrong_commands(page.read_text())) == []


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_of_a_help_can_be_given(name):
    assert list(wrong_commands(import_module(f'mmkd.commands.{name}').__doc__)) == []


def test_a_command_that_cannot_be_given_is_found():
    right = [
        '    mmkd train x.py \\\n        --cfg-options ...  # and so on', '    A=b mmkd check data',
        '    python tools/test.py x.py y.pth', '    python tools/prepare_voc.py draw d --train 3',
        '`mmkd quantize`', '`mmkd quantize --images`', '`mmkd train --method pkd`']
    wrong = [
        '    mmkd trian x.py', '    mmkd train x.py --epoch-number 3', '    mmkd quantize --such',
        '    python tools/tset.py x.py', '    A=b mmkd check data --classes',
        '`mmkd train --no-such`', '`mmkd trian --method`']
    found = list(wrong_commands('\n'.join(right + wrong)))
    assert found == [line.strip() for line in wrong]
