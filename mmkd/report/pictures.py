"""Pictures as part of a page."""

import base64
from pathlib import Path

__all__ = ['data_uri']

TYPES = {'.png': 'image/png', '.jpg': 'image/jpeg'}


def data_uri(path: Path) -> str:
    """Return an element of a page that shows a picture and holds all of it."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="" src="data:{TYPES[path.suffix]};base64,{content}">'
