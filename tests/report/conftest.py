"""Pages are read with the standard library."""

import re
from html.parser import HTMLParser

import pytest


class Page(HTMLParser):
    """Collects the panels of a page with their text, figures and tables, and all addresses."""

    VOID = frozenset(('meta', 'img', 'link', 'br', 'input', 'hr'))

    def __init__(self, text):
        super().__init__()
        self.source, self.panels, self.addresses, self.ids, self._open = text, {}, [], [], []
        self._panel = None
        self.feed(text)
        assert self._open == [], f'left open: {self._open}'

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.addresses += [value for name, value in attrs
                           if name in ('src', 'href', 'xlink:href', 'srcset')]
        self.ids += [given['id']] if 'id' in given else []
        if tag in ('section', 'header'):
            self._panel = self.panels.setdefault(given['id'], dict(text='', tags=[]))
        if self._panel is not None:
            self._panel['tags'].append(tag)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ('section', 'header'):
            self._panel = None

    def handle_data(self, data):
        if self._panel is not None:
            self._panel['text'] += data

    def text(self, panel):
        return re.sub(r'\s+', ' ', self.panels[panel]['text'])

    def count(self, panel, tag):
        return self.panels[panel]['tags'].count(tag)

    def is_self_contained(self):
        outside = [a for a in self.addresses if not a.startswith(('#', 'data:image/'))]
        return not outside and '@import' not in self.source and '<script' not in self.source


@pytest.fixture(scope='session')
def page():
    """Parse a page; it must be well formed, refer to itself alone, and name no part twice."""
    def read(path):
        found = Page(path.read_text())
        assert found.is_self_contained()
        assert len(set(found.ids)) == len(found.ids)
        assert 'Traceback' not in found.source
        return found
    return read
