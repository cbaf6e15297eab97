"""Where configs and studies lie that are named by path, by name or as ``PACKAGE::NAME``.

What mmkd itself carries is in ``mmkd/.mim``, where OpenMMLab's tools look for it: in a clone that
folder has links to the repository's own folders, in a wheel the files.
"""

import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from mmkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ['ARGUMENT', 'CARRIED', 'RUN_CONFIG', 'SHORT', 'config_path', 'first_line', 'neighbours',
           'read_config', 'reading', 'study_path']

SEPARATOR = '::'
CARRIED = Path(__file__).parent / '.mim'
SHORT = dict(classifier='classification/distill.py', selfdistill='selfdistill/train.py',
             online='online/train.py')
"""What configs are called that are taken for their choices, not for one run."""
PARTS = {'_base_', 'methods'}
"""Folders of what configs are made of; nobody trains one of those by its name."""
RUN_CONFIG = 'config.py'
"""The name of the config in the folder of a run."""
KINDS = ('.py', '.json', '.yaml', '.yml')
"""What mmengine reads a config from."""
ARGUMENT = 'MMKD_'
"""How variables in a config begin that an argument fills: ``{{$MMKD_STUDENT:vgg8}}``."""


def config_path(name: str | Path) -> Path:
    """Return the path of a config.

    Args:
        name: a path; the folder of a run, for its ``config.py``; the name of a config that mmkd
            carries (``centernet_mt_r18``, or ``demo/centernet_r18`` where several have one name);
            or ``PACKAGE::NAME`` for what a
            package of OpenMMLab or mmkd carries
            (``mmdet::retinanet/retinanet_r18_fpn_1x_coco.py``).

    Raises:
        UserError: there is no such package or config, or several; names the closest. A path of
            which nothing exists is returned as it is.
    """
    package, separator, place = str(name).partition(SEPARATOR)
    if not separator:
        if os.path.isfile(own := os.path.join(name, RUN_CONFIG)):  # of any name, unlike Path's
            return Path(own)
        return _by_name(name, 'configs')
    root = _configs_of(package)
    if root is None:
        raise UserError(f"config '{name}': the package '{package}' is not installed or carries no "
                        "configs; MMDetection's begin with 'mmdet::'")
    path = _carried(root, place)
    if path is None:
        raise UserError(f"config '{name}' does not exist in the installed {package}."
                        f'{_similar(root, place)}')
    return path


def study_path(name: str | Path) -> Path:
    """Return the path of a study file, which is named like a config.

    Raises:
        UserError: as :func:`config_path`.
    """
    return _by_name(name, 'studies')


def read_config(name: str | Path, arguments: Mapping[str, str] | None = None) -> 'Config':
    """Read a config, whose ``_base_`` may be in the words of :func:`config_path`, too.

    Args:
        name: of the config.
        arguments: the values of variables in it and its bases, while it is read: ``student`` is the
            value of ``{{$MMKD_STUDENT:...}}``. Those that were found are in
            ``Config.env_variables`` of what is returned.

    Raises:
        UserError: as :func:`config_path`, or the file is no config.
    """
    from mmengine.config import Config

    path = config_path(name)
    if path.suffix not in KINDS:
        raise UserError(f"config '{name}' is no Python file: name a config, which ends in .py; a "
                        'checkpoint stands behind it')
    plain = Config._get_cfg_path

    def base_path(base: str, filename: str) -> tuple[str, str | None]:
        # mmengine knows OpenMMLab's packages alone. It would tie what is in a config of MMDetection
        # to MMDetection's registries, where mmkd's hooks, that take the place of some, are unknown.
        if base.startswith((f'mmkd{SEPARATOR}', f'mmdet{SEPARATOR}')):
            return str(config_path(base)), None
        return plain(base, filename)

    with (mock.patch.object(Config, '_get_cfg_path', staticmethod(base_path)),
          _variables(arguments or {})):
        return Config.fromfile(path)


@contextmanager
def reading(path: Path, what: str = 'config') -> Iterator[None]:
    """Turn whatever goes wrong in a Python file of settings into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        base = Path(max(re.findall(r'[^\s"\']+\.py', str(error)), default='', key=len))
        raise UserError(f"{what} '{path}' builds on '{base}', which does not exist."
                        f'{neighbours(base)}') from error
    except SyntaxError as error:
        place = f' in line {error.lineno}' if error.lineno else ''
        raise UserError(f"{what} '{path}' is no valid Python{place}: "
                        f'{first_line(error)}') from error
    except Exception as error:  # it is a program: anything can go wrong in it
        raise UserError(f"{what} '{path}' cannot be read, {type(error).__name__}: "
                        f'{first_line(error)}') from error


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, or its name."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def neighbours(path: Path) -> str:
    """Say which config was meant by a path, or which there are in its folder."""
    if not os.path.isdir(path.parent):
        return f" There is no folder '{path.parent}' either: correct the path"
    names = sorted(file.stem for file in path.parent.glob('*.py'))
    hint = did_you_mean(path.stem, names)
    return hint or f" In that folder there are: {', '.join(names) or 'no configs'}"


@contextmanager
def _variables(arguments: Mapping[str, str]) -> Iterator[None]:
    """Let mmengine find the arguments where it looks for variables, and no others."""
    given = {f'{ARGUMENT}{name.upper()}': value for name, value in arguments.items()}
    names = given.keys() | {name for name in os.environ if name.startswith(ARGUMENT)}
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(given)
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.INFO))  # mmengine would call them environment variables
    try:
        yield
    finally:
        logging.disable(disabled)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _configs_of(package: str) -> Path | None:
    if package == 'mmkd':
        return CARRIED / 'configs'
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    root = Path(next(iter(folders)), '.mim', 'configs') if folders else None
    return root if root is not None and root.is_dir() else None


def _by_name(name: str | Path, kind: str) -> Path:
    """Return a path that exists, else what mmkd carries of that name, else the path."""
    path, root = Path(name), CARRIED / kind
    if os.path.isfile(path) or path.is_absolute():  # unlike Path's, of any name
        return path
    # What a clone has at `configs/demo/centernet_r18.py` is there for every folder.
    place = '/'.join(path.parts[1:] if path.parts[:1] == (kind, ) else path.parts)
    found = _carried(root, SHORT.get(place, place))
    if found is None and len(path.parts) == 1 and not path.suffix:
        raise UserError(f"'{name}' is neither a file here nor one of mmkd's {kind}."
                        f'{_similar(root, place)}')
    return found or path


def _carried(root: Path, place: str) -> Path | None:
    """Return the file at a place below ``root``, or the only one of that name.

    Raises:
        UserError: several have that name.
    """
    file = place if place.endswith('.py') else f'{place}.py'
    if os.path.isfile(root / file):
        return (root / file).resolve()
    same = [path for path in _known(root) if path.name == file]
    if len(same) > 1:
        places = [path.relative_to(root).with_suffix('').as_posix() for path in same]
        raise UserError(f"'{place}' may be {' or '.join(places)}: say which")
    return same[0].resolve() if same else None


def _known(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob('*.py')
                  if not PARTS & set(path.relative_to(root).parts))


def _similar(root: Path, place: str) -> str:
    places = [path.relative_to(root).with_suffix('') for path in _known(root)]
    known = {name for path in places for name in (path.as_posix(), path.name)}
    return did_you_mean(place.removesuffix('.py'), sorted(known | SHORT.keys()))
