"""What mkdocs does beside its own: the docstrings' roles, as in Sphinx, become plain code."""

import re
from typing import Any

ROLE = re.compile(r':(?:func|class|mod|meth|attr|data):(?=<code>)')
FULL_NAME = re.compile(r'<code>~(?:[\w]+\.)*(\w+)</code>')


def on_page_content(html: str, **kwargs: Any) -> str:
    """Return a page without ``:class:`` and the ``~mmkd.detection.`` before a name."""
    return FULL_NAME.sub(r'<code>\1</code>', ROLE.sub('', html))
