"""Two processes with two images each learn what one process with four images learns."""

import pytest
import torch
import torch.distributed as dist
from helpers import (
    AtTheEnd,
    NoiseDetection,
    build,
    centernet,
    centernet_terms,
    distillation,
    distillation_hook,
    leave_process_group,
    runner,
    save_teacher,
    train_config,
)
from mmengine.dataset import pseudo_collate

W = (1000.0, 1.0, 0.1, 100.0)
EMPTY = ((), (2, 3), (1, 2, 3))
"""Images whose objects are taken away: none; all of one process; all but those of one image."""


def _config(folder, teachers, batch):
    terms = centernet_terms('heatmap', 'wh', 'offset') | dict(
        attention=dict(type='FeatureTerm', joint='each', loss=dict(type='AttentionLoss')))
    config = train_config(folder, centernet(), distillation(), iters=1, batch=batch,
                          teachers=teachers, terms=terms, distill_weights=W)
    config.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    config.default_hooks = {}
    return config


def _losses_and_gradients(config, images):
    """Train one step at rate 0, then take the gradients of `images` with frozen batch norms.

    Batch statistics are those of each process by design (SyncBN would share them), so they
    are left out of the comparison.
    """
    run = runner(config)
    end = AtTheEnd(lambda run: [_taken(run, images, empty) for empty in EMPTY])
    run.register_hook(end)
    run.train()
    return end.found


def _taken(run, images, empty):
    model = run.model
    inner = getattr(model, 'module', model)
    inner.load_state_dict(build(centernet(), seed=5).state_dict())
    for module in inner.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    [term] = [term for term in distillation_hook(run).terms if term.name == 'attention']
    connectors = {name: b.connectors[0] for name, b in term.branches.items() if b.connectors}
    for connector in connectors.values():
        torch.nn.init.constant_(connector.conv.weight, 0.1)
        torch.nn.init.constant_(connector.conv.bias, 0.0)
    for parameter in (*inner.parameters(), *(p for c in connectors.values()
                                             for p in c.parameters())):
        parameter.grad = None
    samples = [NoiseDetection()[i] for i in images]
    for image, sample in zip(images, samples, strict=True):
        if image in empty:
            sample['data_samples'].gt_instances = sample['data_samples'].gt_instances[:0]
    batch = inner.data_preprocessor(pseudo_collate(samples), True)
    losses = model(**batch, mode='loss')
    inner.parse_losses(losses)[0].backward()
    gradients = {name: p.grad for name, p in inner.named_parameters()}
    gradients |= {f'{k}.{name}': p.grad for k, c in connectors.items()
                  for name, p in c.named_parameters()}
    return {k: v.detach() for k, v in losses.items()}, gradients


def _worker(rank, folder, teachers, port):
    import os
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    from mmengine.registry import DefaultScope
    dist.init_process_group('gloo')
    with DefaultScope.overwrite_default_scope('mmkd'):
        config = _config(folder / 'two', teachers, batch=2)
        config.launcher = 'pytorch'
        config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                                        broadcast_buffers=False)
        found = _losses_and_gradients(config, [2 * rank, 2 * rank + 1])
    for losses, _ in found:
        for value in losses.values():
            dist.all_reduce(value)
            value /= 2
    if rank == 0:
        torch.save(found, folder / 'two.pt')
    leave_process_group()


@pytest.mark.dist
def test_two_times_two_is_four(tmp_path):
    teachers = dict(resnet=save_teacher(tmp_path, 'resnet', centernet(channels=16)),
                    hourglass=save_teacher(tmp_path, 'hourglass', centernet(stacks=2), seed=2))
    port = 29000 + hash(str(tmp_path)) % 1000
    torch.multiprocessing.spawn(_worker, (tmp_path, teachers, port), nprocs=2)
    two = torch.load(tmp_path / 'two.pt')
    one = _losses_and_gradients(_config(tmp_path / 'one', teachers, 4), range(4))
    for (one_losses, one_gradients), (two_losses, two_gradients) in zip(one, two, strict=True):
        assert len([k for k in one_losses if 'distill' in k]) == 4
        assert set(one_losses) == set(two_losses) and set(one_gradients) == set(two_gradients)
        for key, value in one_losses.items():
            torch.testing.assert_close(two_losses[key], value, rtol=1e-5, atol=1e-6, msg=key)
        for key, value in one_gradients.items():
            scale = value.abs().max().item()
            torch.testing.assert_close(two_gradients[key], value, rtol=1e-4, atol=1e-4 * scale,
                                       msg=key)
