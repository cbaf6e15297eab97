"""List the methods that ``mmkd train --method`` takes, for which detectors, and what they need.

    mmkd methods
"""

import argparse

from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Print one line per method."""
    arguments(prog).parse_args(argv)
    from mmkd.engine.distil import describe_methods

    print(describe_methods())
