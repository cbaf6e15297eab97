"""What is said when one of several processes dies."""

import runpy
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

TOOL = Path(__file__).parents[2] / 'tools/torchrun.py'


def failed(**codes):
    return ChildFailedError('tools/train.py', {
        int(name[-1]): ProcessFailure(int(name[-1]), 100, code, '<N/A>')
        for name, code in codes.items()})


@pytest.mark.parametrize('codes, expected', [
    (dict(rank0=1, rank1=-9),
     'process 1 was ended by SIGKILL (if nobody did that, memory ran out)'),
    (dict(rank0=-11), 'process 0 was ended by SIGSEGV'),
    (dict(rank1=1), 'process 1 failed with status 1 and said above why')])
def test_which_process_died_and_how_to_go_on(codes, expected, monkeypatch, capsys):
    def run():
        raise failed(**codes)
    tool = runpy.run_path(str(TOOL))
    monkeypatch.setattr(tool['run'], 'main', run)
    with pytest.raises(ChildFailedError):
        tool['main']()
    [line] = capsys.readouterr().err.splitlines()
    assert line == (f'error: {expected}, so the others were stopped: a training goes on from its '
                    'last checkpoint by the same command with --resume')
