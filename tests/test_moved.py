"""What was importable from the places of 0.1.0 still is, with a warning that names the new one."""

import importlib
import subprocess
import sys

import pytest

import mmkd  # noqa: F401
from mmkd.moved import MOVED


def import_anew(monkeypatch, name):
    for known in [known for known in sys.modules if f'{known}.'.startswith(f'{name}.')]:
        monkeypatch.delitem(sys.modules, known)
    return importlib.import_module(name)


@pytest.mark.parametrize(('old', 'new', 'name'), [
    ('mmkd.deploy.metadata', 'mmkd.deploy.device.metadata', 'ModelMetadata'),
    ('mmkd.deploy.runtime', 'mmkd.deploy.device.runtime', 'Detector'),
    ('mmkd.deploy.verify', 'mmkd.deploy.export.verify', 'find_images'),
    ('mmkd.deploy.latency', 'mmkd.deploy.compare.latency', 'measure'),
    ('mmkd.deploy.compare_table', 'mmkd.deploy.compare.table', 'markdown'),
    ('mmkd.deploy.folding', 'mmkd.deploy.export.folding', 'fold_batch_norms'),
    ('mmkd.deploy.folding', 'mmkd.deploy.export.rewriting', 'to_half'),
    ('mmkd.ops.folding', 'mmkd.deploy.export.folding', 'fold_into_layers'),
    ('mmkd.selfdistill', 'mmkd.classification.auxiliary', 'AuxiliaryClassifiers'),
    ('mmkd.selfdistill.auxiliary', 'mmkd.classification.auxiliary', 'AuxiliaryClassifiers'),
])
def test_an_old_place(monkeypatch, old, new, name):
    with pytest.warns(DeprecationWarning, match=f'^{old} is .*{new}'):
        module = import_anew(monkeypatch, old)
    assert getattr(module, name) is getattr(importlib.import_module(new), name)
    assert name in module.__all__


@pytest.mark.parametrize('old', MOVED)
def test_every_old_place_has_all_names_of_the_new_ones(old):
    module = importlib.import_module(old)
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match='has no attribute'):
        _ = module.what_never_was


@pytest.mark.parametrize(('room', 'names'), [
    ('mmkd.deploy.export', 'export_onnx export_pt2 exportable load_model model_metadata '
                           'ExportableCenterNet ExportableClassifier'),
    ('mmkd.deploy.compare', 'Entry Row Setup compare load_entry parse_entry')])
def test_a_room_that_has_the_name_of_a_module_has_its_names(room, names):
    module = importlib.import_module(room)
    assert all(callable(getattr(module, name)) for name in names.split())
    with pytest.raises(AttributeError, match='has no attribute'):
        _ = module.what_never_was


SCRIPT = """
import mmkd.deploy.metadata
from mmkd.deploy import nms
from mmkd.deploy.sources import *
print(mmkd.deploy.metadata.ModelMetadata.__module__, nms.Nms.__module__, Sources.__module__)
"""


def test_a_script_is_told_which_line_to_change(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    room = 'mmkd.deploy.device'
    assert done.stdout.split() == [f'{room}.metadata', f'{room}.nms', f'{room}.sources']
    for line, module in ((2, 'metadata'), (3, 'nms'), (4, 'sources')):
        assert (f'script.py:{line}: DeprecationWarning: mmkd.deploy.{module} is {room}.{module} now'
                in done.stderr)
