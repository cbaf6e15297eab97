"""The docs are a site without a broken link, and their examples in Python are Python."""

import ast
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


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
def test_examples_are_python(page):
    for block in re.findall(r'```python\n(.*?)```', page.read_text(), re.S):
        ast.parse(block)


def test_the_training_loop_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [block] = [block for block in re.findall(r'```python\n(.*?)```',
                                             (ROOT / 'docs/python.md').read_text(), re.S)
               if 'for images' in block]
    exec(block, {})
    assert (tmp_path / 'student.pth').exists()


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_what_a_page_names_is_there(page):
    text = page.read_text()
    named = re.findall(r'(?:configs|studies|tools|benchmarks|mmkd)/[\w/.]+\.(?:py|sh|md|csv)', text)
    links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', text)
    # What a reader would make is called `mine`.
    there = [ROOT / name for name in named if 'mine' not in name]
    there += [page.parent / link for link in links]
    assert not [path for path in there if not path.exists()]
