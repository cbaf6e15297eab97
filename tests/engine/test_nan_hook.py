"""A loss that turns NaN."""

import os
import re
import types
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.engine.nan_hook import StopOnInvalidLossHook
from mmkd.errors import UserError


@pytest.mark.parametrize(('bad', 'told'), [('nan', 'nan'), ('inf', 'inf'),
                                           ('1e26', r'[\d.]+e\+2\d')])
def test_stops_at_once_and_keeps_the_last_good_checkpoint(start, tmp_path, bad, told):
    # Two iterations an epoch: the 4th is the one before the second checkpoint is due.
    runner = start(**{'model.bad_step': 4, 'model.bad': bad})
    with pytest.raises(UserError) as raised:
        runner.train()
    message = str(raised.value)
    assert 'at iteration 4 (' in message
    assert re.search(f'loss_other is {told}', message)
    assert 'loss_square' not in message
    assert f"the last good checkpoint is '{tmp_path / 'work/epoch_1.pth'}'" in message
    assert not (tmp_path / 'work/epoch_2.pth').exists()
    kept = load_checkpoint_safely(tmp_path / 'work/epoch_1.pth')
    assert all(value.isfinite().all() for value in kept['state_dict'].values())


def test_only_checkpoints_of_this_run_are_offered(start, tmp_path):
    for earlier_run in (False, True):
        if earlier_run:
            start().train()
        assert (tmp_path / 'work/epoch_4.pth').exists() is earlier_run
        with pytest.raises(UserError, match=r'iteration 1 .*no checkpoint was written before'):
            start(**{'model.bad_step': 1}).train()
    # A run that went on from it has it to go back to.
    resumed = start(**{'model.bad_step': 1, 'resume': True, 'train_cfg.max_epochs': 9,
                       'load_from': str(tmp_path / 'work/epoch_4.pth')})
    with pytest.raises(UserError, match=r"iteration 9 .*last good checkpoint is '.*epoch_4\.pth'"):
        resumed.train()


def test_a_large_loss_is_no_concern(start, tmp_path):
    start(**{'model.bad_step': 4, 'model.bad': '1e+7'}).train()
    assert (tmp_path / 'work/epoch_4.pth').exists()


def test_weights_broken_by_the_last_update_are_not_saved(start, tmp_path):
    runner = start()
    original = runner.train_loop.run_iter

    def run_iter(i, batch):
        original(i, batch)
        if runner.iter == 4:  # the loss was finite, the update was not
            with torch.no_grad():
                runner.model.layers[0].weight[0, 0] = float('inf')
    runner.train_loop.run_iter = run_iter
    with pytest.raises(UserError, match=r'not finite \(first: layers.0.weight\).*epoch_1.pth'):
        runner.train()
    assert not (tmp_path / 'work/epoch_2.pth').exists()


def test_an_infinite_gradient_is_no_concern(start, tmp_path):
    # As dynamic loss scaling meets it: the step is skipped, the loss stays finite.
    runner = start()
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.step = types.MethodType(lambda self: None, runner.optim_wrapper)
    runner.model.layers[0].weight.register_hook(lambda gradient: gradient * float('inf'))
    runner.train()
    assert (tmp_path / 'work/epoch_4.pth').exists()


@pytest.mark.dist
def test_all_processes_stop_together(tmp_path):
    # Only the second process meets the NaN; both must raise the same sentence.
    pids = []
    for rank in range(2):
        if (pid := os.fork()) == 0:
            try:
                torch.set_num_threads(1)
                torch.distributed.init_process_group(
                    'gloo', init_method=f'file://{tmp_path}/store', rank=rank, world_size=2)
                runner = SimpleNamespace(distributed=True, iter=6, cfg={},
                                         message_hub=MessageHub('two processes'))
                hook = StopOnInvalidLossHook()
                hook.after_train_iter(runner, 0, outputs=dict(loss=torch.tensor(1.0)))
                loss = torch.tensor(float('nan') if rank else 1.0)
                try:
                    hook.after_train_iter(runner, 0, outputs=dict(loss=loss))
                except UserError as error:
                    (tmp_path / f'said_by_{rank}').write_text(str(error))
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    said = [(tmp_path / f'said_by_{rank}').read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert 'iteration 7 (loss is nan)' in said[0]
