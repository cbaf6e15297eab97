"""The latest values of what is logged, and no more."""

from mmkd.checkpoints import load_checkpoint_safely


def test_keeps_the_latest(start, tmp_path):
    runner = start(**{'default_hooks.short_history.length': 3})
    seen = []
    original = runner.model.train_step

    def train_step(*args, **kwargs):
        seen.append(original(*args, **kwargs))
        return seen[-1]

    runner.model.train_step = train_step
    runner.train()
    losses = [step['loss'].item() for step in seen]
    assert len(losses) == 8
    assert runner.message_hub.get_scalar('train/loss').data[0].tolist() == losses[-3:]
    hub = load_checkpoint_safely(tmp_path / 'work/epoch_4.pth')['message_hub']
    assert {len(buffer.data[0]) for buffer in hub['log_scalars'].values()} == {3}


def test_shortens_what_is_resumed(start, tmp_path):
    start(**{'default_hooks.short_history.length': 10 ** 6, 'train_cfg.max_epochs': 2}).train()
    runner = start(load_from=str(tmp_path / 'work/epoch_2.pth'), resume=True,
                   **{'default_hooks.short_history.length': 3})
    runner.train()
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 3
