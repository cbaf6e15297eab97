"""What several commands take; imports neither torch nor mmengine, so that `--help` is instant."""

import argparse
from collections.abc import Sequence
from typing import Any

__all__ = ['BACKENDS', 'CHOICES', 'NAMED', 'IntermixedParser', 'KeyValues', 'add_choices',
           'add_common_arguments']

NAMED = ('data', 'method', 'student', 'members', 'teacher')
"""The choices that a config may leave open."""
CHOICES = (*NAMED, 'classes', 'backbone', 'data_root')
BACKENDS = dict(torch='PyTorch', compile='torch.compile', onnx='ONNX Runtime',
                int8='ONNX Runtime int8')
"""What `mmkd compare` times, and how its table calls it."""


class IntermixedParser(argparse.ArgumentParser):
    """One that may have its last argument behind options, also where it may be left out."""

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:
        """Parse as ``ArgumentParser`` does."""
        return self.parse_intermixed_args(*args, **kwargs)


class KeyValues(argparse.Action):
    """Read ``KEY=VALUE ...`` as mmengine does, which is imported when the option is given."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Sequence[str], option_string: str | None = None) -> None:
        """Add the values to those of an earlier option of this name."""
        from mmengine.config import DictAction

        for text in values:
            if '=' not in text:
                parser.error(f"argument {option_string}: '{text}' is no KEY=VALUE")
        action: Any = DictAction(self.option_strings, self.dest, nargs=self.nargs)
        action(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that starts a run takes."""
    parser.add_argument('config', help='path or name of the config, or the folder of a run')
    parser.add_argument('--data-root', metavar='FOLDER', help="where the config's data lie, in "
                        'place of its data_root')
    parser.add_argument('--work-dir', help='where logs and checkpoints go '
                        '(default: work_dir of the config, or work_dirs/<name of the config>)')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help='override entries of the config, e.g. train_cfg.max_epochs=2 '
                        'distill_weights.heatmap=0')
    parser.add_argument('--launcher', choices=['none', 'pytorch'], default='none',
                        help='pytorch when torchrun starts it (see dist_train.sh and dist_test.sh)')


def add_choices(parser: argparse.ArgumentParser, teaches: bool = True) -> None:
    """Add the options that :mod:`mmkd.engine.choices` applies to a config.

    Args:
        parser: of a command.
        teaches: whether the command has to do with teachers.
    """
    group = parser.add_argument_group('what a config leaves open, or is changed in')
    group.add_argument('--data', metavar='NAME_OR_FOLDER', help='of classifiers the name of a data '
                       'set, such as cifar100; of detectors a folder in VOC or COCO layout')
    group.add_argument('--classes', metavar='A,B,C', help='the classes of such a folder')
    group.add_argument('--student', metavar='NETWORK', help='a classifier: resnet8x4, '
                       'timm:resnet18, ...')
    group.add_argument('--members', metavar='NETWORK,NETWORK', help='the classifiers of a cohort')
    group.add_argument('--backbone', metavar='timm:NAME', help='a network of timm in the place of '
                       "a detector's backbone")
    if teaches:
        group.add_argument('--teacher', action='append', metavar='NETWORK[=CHECKPOINT]',
                           help='learn from this classifier; or from a detector, by the folder of '
                           'its run or CONFIG=CHECKPOINT; may be given several times')
    group.add_argument('--method', metavar='NAME', help='of classifiers the name of a method; of '
                       'detectors one or several of `mmkd methods`, by commas (default: joint '
                       'between CenterNets, else pkd)')
