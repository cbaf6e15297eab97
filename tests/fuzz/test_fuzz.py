"""Damaged and hostile files: a short run of every kind; docs/reliability.md has the long one."""

import logging

import pytest

from fuzz.run import KINDS, run

INPUTS = 40


@pytest.fixture(autouse=True)
def _no_leak(monkeypatch):
    """What the guard changes in this process is put back, and nothing is logged."""
    from mmengine.fileio.handlers import file_handlers
    from mmengine.runner import checkpoint
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    monkeypatch.setattr(checkpoint, '_safe_torch_load', checkpoint._safe_torch_load)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    vars(file_handlers['pkl']).clear()


@pytest.mark.parametrize('kind', [kind.name for kind in KINDS])
def test_damaged_files_are_read_or_refused_in_one_sentence(tmp_path, kind):
    verdicts = list(run(tmp_path, INPUTS, 0, [kind]))
    assert len(verdicts) == INPUTS
    assert not [one for one in verdicts if one[2] not in ('read', 'refused')]
    assert any(one[2] == 'read' for one in verdicts)
    # A label file of YOLO that cannot be read is left out.
    assert kind == 'YOLO text' or any(one[2] == 'refused' for one in verdicts)
