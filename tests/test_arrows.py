"""Imports between the rooms of mmkd run one way, as docs/design.md says.

Read from the source: what a function imports when it is called counts, too.
"""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from mmkd.moved import MOVED

PACKAGE = Path(__file__).parents[1] / 'mmkd'
DEVICE = PACKAGE / 'deploy/device'

# Folders that are rooms of their own within another.
INNER = ('distillation.losses', 'deploy.device', 'deploy.export', 'deploy.compare')
# Files beside the folders that need nothing else of mmkd, or one another alone.
BASE = ('__init__', 'checkpoint_checks', 'checkpoints', 'config_files', 'errors', 'files',
        'mmengine_private', 'moved', 'moved_names', 'options', 'random_state', 'text_files',
        'undrawn')
# Rooms that need nothing of mmkd.
ALONE = ('ops', 'distillation.losses', 'deploy.device')
# What each of the others may import, beside `base`.
ALLOWED = {
    'base': {'ops', 'deploy.device'},
    'deploy': {'deploy.device'},
    'images': {'deploy.device'},
    'timm_networks': set(),
    'hugging_face': set(),
    'int8': {'distillation', 'registry'},
    'label': {'detection', 'distillation', 'engine', 'evaluation', 'images', 'registry'},
    'registry': {'timm_networks'},
    'teacher_cache': {'registry'},
    'distillation': {'distillation.losses', 'hugging_face', 'registry', 'teacher_cache',
                     'timm_networks'},
    'detection': {'deploy.device', 'distillation', 'distillation.losses', 'images', 'ops',
                  'registry', 'teacher_cache', 'timm_networks'},
    'classification': {'registry', 'timm_networks', 'images'},
    'online': {'classification', 'distillation', 'distillation.losses', 'engine', 'registry'},
    'evaluation': {'registry'},
    'own_data': {'detection', 'images', 'deploy.device'},
    'engine': {'int8', 'detection', 'distillation', 'registry', 'teacher_cache', 'timm_networks',
               'ops'},
    'deploy.export': {'int8', 'deploy.device', 'classification', 'distillation', 'images', 'ops',
                      'registry'},
    'deploy.compare': {'deploy.export', 'deploy.device', 'classification', 'distillation',
                       'engine', 'images', 'registry'},
    'visualization': {'classification', 'deploy.device', 'distillation', 'engine', 'registry'},
    'study': {'distillation', 'engine', 'evaluation', 'registry', 'teacher_cache',
              'visualization'},
    'report': {'classification', 'deploy.compare', 'deploy.device', 'distillation', 'engine',
               'evaluation', 'images', 'registry', 'visualization'},
    'api': {'deploy.compare', 'deploy.device', 'deploy.export', 'engine', 'report'},
    'commands': {'api', 'label', 'deploy.compare', 'deploy.device', 'deploy.export', 'detection',
                 'distillation', 'engine', 'evaluation', 'images', 'own_data', 'registry', 'report',
                 'study', 'visualization'},
    '__main__': {'commands'},
}
# Single files that point the other way, and why.
EXCEPTIONS = {
    ('deploy.device.standalone', 'base'): 'where the folder was not copied alone',
}


def modules():
    """Every module of mmkd: its name, without `mmkd.`, and its file."""
    for file in sorted(PACKAGE.rglob('*.py')):
        parts = file.relative_to(PACKAGE).with_suffix('').parts
        if parts[0] != '.mim':
            yield '.'.join(parts), file


def imported(file):
    """What a file imports, by full names; `from . import x` as of its own package."""
    package = ('mmkd', *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join((*package[:len(package) + 1 - node.level],
                             *filter(None, [node.module]))) if node.level else node.module
            yield base
            for name in node.names:
                # The name of a module, or of something in the one before.
                if exists(f'{base}.{name.name}') or f'{base}.{name.name}' in MOVED:
                    yield f'{base}.{name.name}'


def exists(name):
    path = PACKAGE.parent.joinpath(*name.split('.'))
    return path.with_suffix('.py').is_file() or (path / '__init__.py').is_file()


def room(module):
    """The room of a module, named without `mmkd.`; '' is mmkd itself."""
    for inner in INNER:
        if f'{module}.'.startswith(f'{inner}.'):
            return inner
    first = module.partition('.')[0] or '__init__'
    return 'base' if first in BASE else first


def arrows():
    for module, file in modules():
        for name in imported(file):
            if name.partition('.')[0] == 'mmkd':
                yield module, name.removeprefix('mmkd').removeprefix('.')


def test_each_arrow_is_allowed():
    allowed = {name: {name} for name in ALONE} | {
        name: {name, 'base'} | others for name, others in ALLOWED.items()}
    wrong = {f'{module} imports {other}' for module, other in arrows()
             if room(other) not in allowed[room(module)]
             and (module, room(other)) not in EXCEPTIONS}
    assert not wrong


def test_they_run_one_way():
    order = list(TopologicalSorter(ALLOWED).static_order())  # raises where they go round
    assert order[-1] == '__main__'
    rooms = [order.index(f'deploy.{name}') for name in ('device', 'export', 'compare')]
    assert rooms == sorted(rooms)


def test_what_is_imported_is_there_and_in_its_new_place():
    wrong = {f'{module} imports {other}' for module, other in arrows()
             if other and not exists(f'mmkd.{other}')}
    assert not wrong


@pytest.mark.parametrize('file', sorted(DEVICE.glob('*.py')), ids=lambda file: file.stem)
def test_the_device_room_needs_five_things(file):
    """Python's own modules, NumPy, OpenCV, onnxruntime, and for classifiers Pillow."""
    tops = {name.partition('.')[0] for name in imported(file)
            if not f'{name}.'.startswith('mmkd.deploy.device.')}
    others = tops - sys.stdlib_module_names - {'numpy', 'cv2', 'onnxruntime', 'PIL'}
    assert others == ({'mmkd'} if file.stem == 'standalone' else set())
