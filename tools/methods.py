"""List the methods that ``tools/train.py --method`` takes, for which detectors, and what they need.

    python tools/methods.py
"""

import mmkd  # noqa: F401  (before anything of mmdet)
from mmkd.engine.cli import user_errors


@user_errors()
def main() -> None:
    """Print one line per method."""
    from mmkd.engine.distil import describe_methods

    print(describe_methods())


if __name__ == '__main__':
    main()
