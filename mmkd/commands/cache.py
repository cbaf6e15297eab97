"""Let the teachers of a config see every fixed view of the training data, and store what they say.

    mmkd cache configs/centernet_mt_r18.py \\
        --cfg-options teacher_cache.folder=work_dirs/cache teacher_cache.views=8

mmkd train does it by itself where something is missing. This tool does nothing else, and may
run any number of times at once, on every GPU and machine that shares the folder: each takes what
nobody else is at. What is finished is never done again.
"""

import argparse

from mmkd.engine.arguments import add_choices, add_common_arguments
from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    add_choices(parser)
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments and build the cache."""
    args = arguments(prog).parse_args(argv)
    from mmkd.engine import launch

    launch.cache_teachers(launch.config_from_arguments(args))
