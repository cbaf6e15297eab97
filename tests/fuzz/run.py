"""All kinds of inputs, one after the other."""

import os
import sys
import tempfile
from unittest import mock

from mmengine.registry import DefaultScope

import mmkd.engine.hooks  # noqa: F401  (before anything of mmdet)
from fuzz.judge import judge
from fuzz.others import Archive, Configs, Onnx, Shards
from fuzz.pictures import Coco, Image, Voc, Yolo
from fuzz.weights import Checkpoint, Initial
from mmkd.engine.guard import refuse_code_in_files

KINDS = (Voc, Image, Coco, Yolo, Checkpoint, Initial, Shards, Onnx, Archive, Configs)


def run(folder, inputs, seed, names=None, only=None):
    """Yield kind, number and verdict of each input.

    Args:
        folder: for all that is written.
        inputs: how many, of all kinds together.
        seed: another gives other inputs.
        names: of the kinds; all by default.
        only: the number of one input of each kind, in place of all.
    """
    kinds = [kind for kind in KINDS if not names or kind.name in names]
    scratch = folder / 'scratch'
    scratch.mkdir()
    refuse_code_in_files()
    with (mock.patch.object(tempfile, 'tempdir', str(scratch)),
          mock.patch.object(sys, 'dont_write_bytecode', True),
          mock.patch.dict(os.environ, TORCH_HOME=str(folder / 'torch')),
          DefaultScope.overwrite_default_scope('mmkd')):
        for kind in kinds:
            templates = folder / kind.__name__
            templates.mkdir()
            made = kind(templates)
            numbers = range(-(-inputs // len(kinds))) if only is None else [only]
            for number in numbers:
                yield kind.name, number, judge(made, seed, number, folder)
