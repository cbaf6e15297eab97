"""The detectors with dense heads, narrow enough for one CPU core."""

from types import SimpleNamespace

import pytest
import torch
from helpers import AtTheEnd, distillation_hook, runner, train_config
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from zoo import model

from mmkd.engine.distil import distil
from mmkd.errors import UserError
from mmkd.registry import MODELS
from mmkd.teacher_cache.options import fix_views

HEADS = ('GFL', 'RetinaNet', 'ATSS', 'FCOS')
WIDTH = 32


def narrow(name, **head):
    """Config of a detector of the zoo with 32 channels, or fewer, everywhere."""
    cfg = model(name)
    cfg.backbone.update(base_channels=8)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=WIDTH)
    cfg.bbox_head.update(in_channels=WIDTH, feat_channels=WIDTH, **head)
    if name != 'RetinaNet':  # which has no norms; a group must have several numbers in one cell
        cfg.bbox_head.norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
    return cfg


def build(cfg, seed=0):
    """Build a detector whose head says something of every class."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmkd'):
        found = MODELS.build(cfg)
    head = found.roi_head if hasattr(found, 'roi_head') else found.bbox_head
    for parameter in head.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return found


def saved(folder, cfg, classes=None, build=build):
    """Write a teacher; return what the command line says of it."""
    Config(dict(model=cfg, default_scope='mmkd')).dump(folder / 'teacher.py')
    meta = {} if classes is None else dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=build(cfg, seed=3).state_dict(), meta=meta), folder / 'teacher.pth')
    return f'{folder / "teacher.py"}={folder / "teacher.pth"}'


def distilled(folder, student, teacher, methods, look=None, iters=2, **changes):
    """Train for a few steps; return the run and what ``look(run)`` found at its end."""
    cfg = train_config(folder / 'run', student, iters=iters, batch=2, **changes)
    cfg.optim_wrapper.optimizer.lr = 1e-4
    distil(cfg, [teacher], methods)
    fix_views(cfg)
    for term in cfg.terms.values():
        if 'points' in term:
            term.points = 9
    return trained(cfg, look)


def trained(cfg, look=None):
    """Train, and look at the end; only the student may learn, and its methods are its own again."""
    run, probe = runner(cfg), AtTheEnd(look or (lambda run: None))
    run.register_hook(probe)
    run.train()
    [teacher] = distillation_hook(run).teachers
    assert teacher.model is None or all(p.grad is None for p in teacher.model.parameters())
    assert not any({'forward', 'get_targets'} & vars(module).keys()
                   for module in run.model.modules())
    return run, probe.found


def copied(folder, cfg, methods, saved=saved):
    """One step of a student that begins as its teacher, with the same norms."""
    cfg.backbone.norm_eval = True
    return distilled(folder, cfg, saved(folder, cfg), methods, iters=1,
                     load_from=str(folder / 'teacher.pth'))[0]


def values(run, term):
    """The logged loss of a term in every step."""
    return run.message_hub.log_scalars[f'train/loss_distill_{term}'].data[0]


def one_more_step(run):
    """Of a step that updates nothing: its batch, and by term the loss and norms of its gradient.

    These are of the term alone, at each of the student's parameters that it reaches.
    """
    batch = run.model.data_preprocessor(next(iter(run.train_dataloader)), True)
    found = run.model(**batch, mode='loss')
    wanted = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    losses, reached = {}, {}
    for term in distillation_hook(run).terms:
        loss = found[f'loss_distill_{term.name}']
        parts = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True,
                                    retain_graph=True)
        losses[term.name] = loss.item()
        reached[term.name] = {name: part.norm().item() for name, part in
                              zip(wanted, parts, strict=True) if part is not None}
        assert all(norm < float('inf') for norm in reached[term.name].values())
    return batch, losses, reached


def gradients(run):
    return one_more_step(run)[2]


def refusal(term, student, *teachers):
    """The one sentence by which a term refuses detectors."""
    teachers = [SimpleNamespace(name='big', model=one) for one in teachers]
    with pytest.raises(UserError) as error:
        term.meet(student, teachers)
    assert '\n' not in str(error.value)
    return str(error.value)


def features(size=64, images=2, seed=1):
    """Maps of a feature pyramid of strides 8 to 128."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, WIDTH, *(max(size // stride, 1), ) * 2, generator=generator)
            for stride in (8, 16, 32, 64, 128)]


def samples(size=64):
    """Two images, one of them smaller than the input, with two objects and with one."""
    boxes = ([[5.0, 8.0, 30.0, 60.0], [20.0, 10.0, 44.0, 33.0]], [[2.0, 3.0, 40.0, 40.0]])
    found = []
    for own, labels, shape in zip(boxes, ([2, 0], [1]), ((size, size), (48, 40)), strict=True):
        sample = DetDataSample(metainfo=dict(
            img_shape=shape, pad_shape=(size, size), batch_input_shape=(size, size)))
        sample.gt_instances = InstanceData(bboxes=torch.tensor(own), labels=torch.tensor(labels))
        found.append(sample)
    return found
