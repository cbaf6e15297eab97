"""Where a config lies that is named by its path, or by a package and its place in it."""

import importlib.util
from pathlib import Path

from mmkd.errors import UserError, did_you_mean

__all__ = ['config_path']

SEPARATOR = '::'


def config_path(name: str | Path) -> Path:
    """Return the path of a config: of ``'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'``, too.

    ``PACKAGE::`` stands for the configs that OpenMMLab's packages carry.

    Raises:
        UserError: there is no such package or config; names the closest.
    """
    package, separator, place = str(name).partition(SEPARATOR)
    if not separator:
        return Path(name)
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    root = Path(next(iter(folders)), '.mim', 'configs') if folders else None
    if root is None or not root.is_dir():
        raise UserError(f"config '{name}': the package '{package}' is not installed or carries no "
                        "configs; MMDetection's begin with 'mmdet::'")
    path = root / place
    if not path.suffix:
        path = path.with_suffix('.py')
    if not path.is_file():
        known = {str(found.relative_to(root)): found for found in root.rglob('*.py')}
        close = did_you_mean(place, known)
        raise UserError(f"config '{name}' does not exist in the installed {package}.{close}")
    return path
