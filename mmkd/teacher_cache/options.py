"""The config's line about cached teachers."""

from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmkd.errors import UserError
from mmkd.options import read_options

__all__ = ['CacheOptions', 'cache_options', 'fix_views']


@dataclass(frozen=True)
class CacheOptions:
    """``teacher_cache = dict(...)`` of a config.

    Every training image gets ``views`` fixed augmented views; the teachers see each of them once,
    and what they say of it is read from ``folder`` ever after.

    Raises:
        UserError: an entry is out of its range.
    """

    folder: str
    """Where the cache lies, or is built."""
    views: int | str
    """Views of each image; or ``'all'``, for a data preprocessor that draws from few, see
    :class:`mmkd.classification.data.BatchPreprocessor`."""
    seed: int = 0
    """Of the views; the run has its own seed, so that students of several seeds share a cache."""
    terms: tuple[str, ...] | None = None
    """Names of the terms whose teachers' outputs are cached; None for all. For the others the
    teachers run in every step."""
    dtype: str = 'float16'
    """``'float16'``, or ``'float32'`` to store the outputs as they are."""

    def __post_init__(self) -> None:
        wrong = None
        if not isinstance(self.folder, str) or not self.folder:
            wrong = f'folder={self.folder!r}: name a folder'
        elif self.views != 'all' and (not isinstance(self.views, int) or self.views < 1):
            wrong = f"views={self.views!r}: give a number of at least 1, or 'all'"
        elif not isinstance(self.seed, int) or self.seed < 0:
            wrong = f'seed={self.seed!r}: give a number of at least 0'
        elif self.dtype not in ('float16', 'float32'):
            wrong = f"dtype={self.dtype!r}: give 'float16' or 'float32'"
        elif self.terms is not None and (isinstance(self.terms, str)
                                         or not all(isinstance(t, str) for t in self.terms)):
            wrong = f'terms={self.terms!r}: give a list of names'
        if wrong:
            raise UserError(f'teacher_cache has {wrong}')


def cache_options(cfg: Config) -> CacheOptions | None:
    """Read ``teacher_cache``; None if the config has none.

    Raises:
        UserError: it has unknown or wrong entries.
    """
    return read_options(cfg, 'teacher_cache', CacheOptions,
                        "dict(folder='work_dirs/cache', views=8)")


def fix_views(cfg: Config) -> None:
    """Let the training data of ``cfg`` give fixed views, if ``teacher_cache`` asks for them.

    Raises:
        UserError: as :func:`cache_options`.
    """
    options = cache_options(cfg)
    loader: dict[str, Any] = cfg.get('train_dataloader')
    if options is None or options.views == 'all' or loader.dataset.type == 'FixedViews':
        return
    loader.dataset = dict(type='FixedViews', dataset=loader.dataset, views=options.views,
                          seed=options.seed)
    loader.sampler = dict(type='ViewSampler', sampler=loader.sampler)
