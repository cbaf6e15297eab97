"""The command ``mmkd``: ``mmkd NAME ...`` calls ``main`` of the module ``mmkd/commands/NAME.py``.

A further command is a module with ``arguments(prog)``, its parser, ``main(argv, prog)``, and a line
of :data:`COMMANDS`. Only the module that was asked for is imported, and nothing heavy before its
arguments are parsed, so that ``--help`` and completion are instant and ``mmkd predict`` needs no
PyTorch.
"""

import argparse
import importlib
import os
import sys
from types import ModuleType

from mmkd import __version__
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError, did_you_mean

__all__ = ['COMMANDS', 'main']

COMMANDS = {
    'demo': 'all of mmkd on drawn images and two CPU cores, in one table',
    'new': 'look at a folder of photographs, and write a config for it',
    'browse': 'training images as the network sees them',
    'check': 'is a data set in PASCAL VOC layout whole?',
    'label': 'label images by what teachers find in them',
    'train': 'train a model, or let it learn from teachers',
    'pretrain': 'let a backbone learn from teachers on images without labels',
    'test': 'evaluate a checkpoint or an exported model',
    'report': 'one page on a run, or on several side by side',
    'export': 'write a trained model as ONNX or torch.export',
    'quantize': 'turn an exported model into an int8 one',
    'predict': 'run an exported model on images and videos, without PyTorch',
    'compare': 'parameters, latency and accuracy of models, side by side',
    'study': 'does it help? a baseline and variants with the same seeds',
    'methods': 'list what --method of train takes',
    'taps': 'list what of a model a term can tap',
    'cache': 'store what teachers say, before training',
}
"""By name a line for ``mmkd --help``, in the order in which one meets them."""


@user_errors()
def main(argv: list[str] | None = None) -> None:
    """Call the command that the first argument names.

    Args:
        argv: the arguments; None for those of the process.

    Raises:
        SystemExit: the arguments ask for help or the version, or name no command.
    """
    if '_ARGCOMPLETE' in os.environ:  # a shell asks, by the function that argcomplete gave it
        _complete()
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help'):
        print(_help())
    elif name == '--version':
        print(f'mmkd {__version__}')
    elif name in COMMANDS:
        _module(name).main(rest, f'mmkd {name}')
    else:
        raise UserError(f"mmkd has no command '{name}'.{did_you_mean(name, COMMANDS)} "
                        '`mmkd --help` lists them')


def _module(name: str) -> ModuleType:
    return importlib.import_module(f'mmkd.commands.{name}')


def _complete() -> None:
    """Tell the shell what may stand next on its command line, and end the process."""
    import argcomplete

    parser = argparse.ArgumentParser()
    parser.add_argument('--version', action='store_true', help='print the version')
    commands = parser.add_subparsers()
    typed = os.environ.get('COMP_LINE', '').split()[1:]
    for name, line in COMMANDS.items():
        own = [_module(name).arguments()] if typed[:1] == [name] else []
        commands.add_parser(name, help=line, parents=own, add_help=not own)
    argcomplete.autocomplete(parser)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'    {name:<{width}}  {line}' for name, line in COMMANDS.items()]
    return '\n'.join(['usage: mmkd COMMAND ...', '', *lines, '',
                      '`mmkd COMMAND --help` says more of one.'])
