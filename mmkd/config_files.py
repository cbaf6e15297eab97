"""Where configs and studies lie that are named by path, by name or as ``PACKAGE::NAME``.

What mmkd itself carries is in ``mmkd/.mim``, where OpenMMLab's tools look for it: in a clone that
folder has links to the repository's own folders, in a wheel the files.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from mmkd.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ['ARGUMENT', 'CARRIED', 'SHORT', 'config_path', 'read_config', 'study_path']

SEPARATOR = '::'
CARRIED = Path(__file__).parent / '.mim'
SHORT = dict(classifier='classification/distill.py', selfdistill='selfdistill/train.py',
             online='online/train.py')
"""What configs are called that are taken for their choices, not for one run."""
PARTS = {'_base_', 'methods'}
"""Folders of what configs are made of; nobody trains one of those by its name."""
KINDS = ('.py', '.json', '.yaml', '.yml')
"""What mmengine reads a config from."""
ARGUMENT = 'MMKD_'
"""How variables in a config begin that an argument fills: ``{{$MMKD_STUDENT:vgg8}}``."""


def config_path(name: str | Path) -> Path:
    """Return the path of a config.

    Args:
        name: a path; the name of a config that mmkd carries (``centernet_mt_r18``, or
            ``demo/centernet_r18`` where several have one name); or ``PACKAGE::NAME`` for what a
            package of OpenMMLab or mmkd carries
            (``mmdet::retinanet/retinanet_r18_fpn_1x_coco.py``).

    Raises:
        UserError: there is no such package or config, or several; names the closest. A path of
            which nothing exists is returned as it is.
    """
    package, separator, place = str(name).partition(SEPARATOR)
    if not separator:
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
        # mmengine knows OpenMMLab's packages alone.
        if base.startswith(f'mmkd{SEPARATOR}'):
            return str(config_path(base)), None
        return plain(base, filename)

    with (mock.patch.object(Config, '_get_cfg_path', staticmethod(base_path)),
          _variables(arguments or {})):
        return Config.fromfile(path)


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
    if path.is_file() or path.is_absolute():
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
    if (root / file).is_file():
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
