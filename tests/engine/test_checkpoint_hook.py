"""Kills, full disks, resuming."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch

from mmkd.checkpoint_checks import WEIGHTS_HASH, is_whole, weights_hash
from mmkd.checkpoints import load_checkpoint_safely
from mmkd.engine import checkpoint_hook
from mmkd.engine.checkpoint_hook import latest_checkpoint
from mmkd.engine.launch import train
from mmkd.errors import UserError


def kill_at(monkeypatch, module, name, count):
    """Let the process die by SIGKILL at call number ``count`` of ``module.name``."""
    original, calls = getattr(module, name), []

    def counted(*args):
        calls.append(args)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)
    monkeypatch.setattr(module, name, counted)


def resume(start, **options):
    """Go on from the newest whole checkpoint, as `--resume` does."""
    work = Path(start().work_dir)
    runner = start(load_from=str(latest_checkpoint(work)), resume=True, **options)
    runner.train()
    return runner


def checkpoints(folder):
    return sorted(path.name for path in Path(folder).glob('*.pth*'))


def state(path):
    checkpoint = load_checkpoint_safely(path)
    return {**checkpoint['state_dict'],
            **{f'{i}.{name}': value for i, slots in checkpoint['optimizer']['state'].items()
               for name, value in slots.items()}}


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in a)


def test_what_a_run_leaves(start, tmp_path):
    """The newest checkpoints, with the hash of their weights, and nothing of a killed write."""
    work = tmp_path / 'work'
    work.mkdir()
    names = ['.epoch_9.pth.host.7.tmp.pth', '.results.csv.host.7.tmp.csv',
             '.last_checkpoint.host.7.tmp']
    for name in names:
        (work / name).write_bytes(b'half')
    start().train()
    assert not [name for name in names if (work / name).exists()]
    assert checkpoints(work) == ['epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth', 'last.pth']
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_4.pth')
    assert set(load_checkpoint_safely(work / 'epoch_4.pth')['state_dict']) == set(
        start('other').model.state_dict())
    for name in ('last.pth', 'epoch_4.pth'):
        checkpoint = torch.load(work / name, weights_only=False)
        assert checkpoint['meta'][WEIGHTS_HASH] == weights_hash(checkpoint['state_dict'])


# Each checkpoint is three renames: its own, that of `last_checkpoint` and that of `last.pth`.
@pytest.mark.parametrize('name, count, whole, workers', [
    ('fsync', 9, 2, 0), ('replace', 7, 2, 2), ('replace', 8, 3, 0)])
def test_resume_after_kill_equals_the_uninterrupted_run(name, count, whole, workers, start,
                                                        tmp_path, monkeypatch, killed):
    options = {'train_dataloader.num_workers': workers}
    start('whole', **options).train()
    with monkeypatch.context() as patch:
        kill_at(patch, os, name, count)
        killed(lambda: start(**options).train())
    # The one before is always there; the one that was written when the kill came is not, or whole.
    assert all(is_whole(tmp_path / 'work' / f'epoch_{i}.pth') for i in range(1, whole + 1))
    assert not (tmp_path / 'work' / f'epoch_{whole + 1}.pth').exists()
    resume(start, **options)
    assert checkpoints(tmp_path / 'work') == ['epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth',
                                              'last.pth']
    assert same(state(tmp_path / 'work/epoch_4.pth'), state(tmp_path / 'whole/epoch_4.pth'))


def test_a_kill_before_the_last_checkpoint_was_linked(start, tmp_path, monkeypatch, killed):
    """Nothing is left to train then, and so nothing to save."""
    with monkeypatch.context() as patch:
        kill_at(patch, os, 'replace', 12)
        killed(lambda: start().train())
    last, newest = tmp_path / 'work/last.pth', tmp_path / 'work/epoch_4.pth'
    assert load_checkpoint_safely(last)['meta']['epoch'] == 3
    (tmp_path / 'work/mine.pth').write_bytes(b'')
    resume(start)
    assert last.read_bytes() == newest.read_bytes()
    assert checkpoints(tmp_path / 'work') == ['epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth',
                                              'last.pth', 'mine.pth']


def test_augmentation_differs_from_epoch_to_epoch(start):
    # With mmengine's own seeding, workers started anew draw the same numbers in every epoch.
    runner = start(**{'train_dataloader.num_workers': 1, 'train_dataloader.sampler.shuffle': False})
    loop, seen = runner.train_loop, []
    original = loop.run_iter
    loop.run_iter = lambda i, batch: (seen.append(torch.stack(batch['inputs'])),
                                      original(i, batch))
    runner.train()
    first_batches = seen[::2]
    assert len(first_batches) == 4
    assert not torch.equal(first_batches[0], first_batches[1])


def test_full_disk_names_the_last_whole_checkpoint(start, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 9:  # the third checkpoint: a file and its folder, twice each
            raise OSError(errno.ENOSPC, 'No space left on device')
        real(descriptor)
    monkeypatch.setattr(checkpoint_hook.os, 'fsync', full)
    work = tmp_path / 'work'
    with pytest.raises(UserError) as raised:
        start().train()
    for part in ('No space left on device', f"'{work}'",
                 f"the last good checkpoint is '{work / 'epoch_2.pth'}'"):
        assert part in str(raised.value)
    assert checkpoints(work) == ['epoch_1.pth', 'epoch_2.pth', 'last.pth']


def test_previous_best_goes_only_when_the_new_best_is_there(start, tmp_path, monkeypatch, killed):
    options = {'default_hooks.checkpoint.save_best': 'asked', 'default_hooks.checkpoint.rule':
               'greater', 'train_cfg.val_interval': 1}
    more = ('\nval_dataloader = test_dataloader\nval_evaluator = test_evaluator\n'
            'val_cfg = dict(type="ValLoop")\n')
    start('good', more, **options).train()  # each epoch is better than the one before
    assert [n for n in checkpoints(tmp_path / 'good') if 'best' in n] == [
        'best_asked_epoch_4.pth']
    with monkeypatch.context() as patch:
        # An epoch: checkpoint, pointer and last, best, the first three again.
        kill_at(patch, os, 'replace', 11)
        killed(lambda: start('work', more, **options).train())
    assert is_whole(tmp_path / 'work/best_asked_epoch_1.pth')


def test_latest_checkpoint_passes_over_broken_files(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for i in (1, 2, 10):
        torch.save(dict(a=torch.zeros(100)), tmp_path / f'epoch_{i}.pth')
    whole = (tmp_path / 'epoch_10.pth').read_bytes()
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_10.pth'
    (tmp_path / 'epoch_10.pth').write_bytes(whole[:-40])
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'
    (tmp_path / 'last_checkpoint').write_text('/moved/from/there/epoch_1.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


def test_resume_refuses_weights_alone_and_other_architectures(start, tmp_path):
    from tiny_run import write_config

    from mmkd.engine.config import load_config
    start('work').train()
    cfg = load_config(write_config(tmp_path))
    cfg.work_dir, cfg.launcher = str(tmp_path / 'new'), 'none'
    checkpoint = load_checkpoint_safely(tmp_path / 'work/epoch_4.pth')
    torch.save(dict(state_dict=checkpoint['state_dict']), tmp_path / 'weights.pth')
    with pytest.raises(UserError, match='holds no message_hub and no meta and no optimizer'):
        train(cfg.copy(), resume=str(tmp_path / 'weights.pth'))
    with pytest.raises(UserError, match=r"nothing\.pth' does not exist"):
        train(cfg.copy(), resume=str(tmp_path / 'nothing.pth'))
    cfg.model.width = 9
    with pytest.raises(UserError, match='another architecture'):
        train(cfg, resume=str(tmp_path / 'work/epoch_4.pth'))
