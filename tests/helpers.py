"""Tiny CenterNets, drawn batches and runners, for tests only."""

import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

import mmkd  # noqa: F401  (before mmdet)
from mmkd.registry import DATASETS, MODELS

CLASSES = ('disc', 'ring', 'star')
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def centernet(channels=8, base_channels=4, num_classes=3, stacks=0, mean=MEAN, std=STD,
              bgr_to_rgb=True, deconvs=3):
    """Config of a CenterNet of a few thousand parameters; an Hourglass if `stacks` is not 0."""
    head = dict(type='CenterNetHead', in_channels=channels, feat_channels=8,
                num_classes=num_classes, num_stacks=max(1, stacks))
    if stacks:
        backbone = dict(type='HourglassNet', downsample_times=1, num_stacks=stacks,
                        stage_channels=(channels, channels), stage_blocks=(1, 1),
                        feat_channel=channels)
        neck = None
    else:
        backbone = dict(type='ResNet', depth=18, base_channels=base_channels)
        neck = dict(type='CTResNetNeck', in_channels=8 * base_channels,
                    num_deconv_filters=(channels,) * deconvs, num_deconv_kernels=(4,) * deconvs,
                    use_dcn=False)
    return ConfigDict(
        type='CenterNet',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=mean, std=std,
                               bgr_to_rgb=bgr_to_rgb, pad_size_divisor=64),
        backbone=backbone, neck=neck, bbox_head=head,
        test_cfg=dict(topk=20, local_maximum_kernel=3, max_per_img=20))


def build(config, seed=0):
    """Build a model from `centernet(...)` with weights that depend on the seed alone."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmkd'):
        model = MODELS.build(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return model


def save_teacher(folder, name, config, classes=CLASSES, seed=1):
    """Write config and checkpoint of a teacher as training would; return its hook entry."""
    folder = Path(folder)
    model = build(config, seed)
    Config(dict(model=config, default_scope='mmkd')).dump(folder / f'{name}.py')
    meta = {} if classes is None else dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f'{name}.pth')
    return dict(config=str(folder / f'{name}.py'), checkpoint=str(folder / f'{name}.pth'))


@DATASETS.register_module()
class NoiseDetection(Dataset):
    """`length` images of noise, each with one to three boxes, and masks if they are wanted."""

    def __init__(self, length=8, size=64, classes=CLASSES, masks=False):
        self.length, self.size, self.masks = length, size, masks
        self.metainfo = dict(classes=classes)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        from mmdet.structures import DetDataSample
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, self.size, self.size), dtype=torch.uint8,
                              generator=generator)
        count = 1 + index % 3
        corner = torch.rand(count, 2, generator=generator) * self.size / 2
        side = 8 + torch.rand(count, 2, generator=generator) * self.size / 3
        labels = torch.randint(0, len(self.metainfo['classes']), (count,), generator=generator)
        sample = DetDataSample(metainfo=dict(
            img_id=index, img_path=f'{index}.jpg', ori_shape=(self.size, self.size),
            img_shape=(self.size, self.size), scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=torch.cat((corner, corner + side), 1),
                                           labels=labels)
        if self.masks:
            from mmdet.structures.mask import BitmapMasks
            masks = torch.zeros(count, self.size, self.size, dtype=torch.uint8)
            for mask, box in zip(masks, sample.gt_instances.bboxes.long(), strict=True):
                mask[box[1]:box[3], box[0]:box[2]] = 1
            sample.gt_instances.masks = BitmapMasks(masks.numpy(), self.size, self.size)
        return dict(inputs=image, data_samples=sample)


RECIPE = dict(
    heatmap=dict(type='CenterNetTerm', map='heatmap', loss=dict(type='SoftFocalLoss')),
    wh=dict(type='CenterNetTerm', map='wh', loss=dict(type='WidthHeightLoss')),
    offset=dict(type='CenterNetTerm', map='offset', loss=dict(type='OffsetLoss')),
    feature=dict(type='FeatureTerm', loss=dict(type='PKDLoss')))


def centernet_terms(*names, **changes):
    """The recommended terms, all or those of some names, with the same changes to each."""
    return {name: dict(RECIPE[name], **changes) for name in names or RECIPE}


def distillation(teachers=None, terms=None, **options):
    """Hooks of a run that distils; None where the config has `teachers` or `terms`."""
    return [dict(type='DistillationHook', teachers=teachers, terms=terms, **options)]


def distillation_hook(run):
    """The run's DistillationHook."""
    return next(hook for hook in run.hooks if type(hook).__name__ == 'DistillationHook')


class AtTheEnd(Hook):
    """Calls a function of the runner when the training is over and the run's hooks still hold."""

    def __init__(self, function):
        self.function = function
        self.found = None

    def after_train(self, runner):
        self.found = self.function(runner)


DRAWN_DETECTOR = """
_base_ = ['{root}/configs/_base_/models/narrow_resnet18.py',
          '{root}/configs/_base_/datasets/drawn.py',
          '{root}/configs/_base_/schedules/small_8e.py',
          '{root}/configs/_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=32, num_deconv_filters=({width}, {width})),
    bbox_head=dict(num_classes={{{{_base_.num_classes}}}}, in_channels={width}, feat_channels=8))
train_cfg = dict(max_epochs=1, val_interval=1)
"""
"""Config of a tiny CenterNet for drawn images, for one epoch."""


def train_config(work_dir, model, hooks=(), iters=3, batch=4, **extra):
    """Config of a short run on noise."""
    return Config(dict(
        model=model, work_dir=str(work_dir), default_scope='mmkd', custom_hooks=list(hooks),
        train_dataloader=dict(batch_size=batch, num_workers=0,
                              sampler=dict(type='DefaultSampler', shuffle=False),
                              dataset=dict(type='NoiseDetection')),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)),
        randomness=dict(seed=0), log_level='WARNING', **extra))


def runner(config):
    """Build a runner for `train_config(...)`."""
    config.experiment_name = f'test_{id(config)}'
    return Runner.from_cfg(config)


def assert_plain_student(cfg, folder):
    """A run of one epoch saved the finite state of the config's network, and no more."""
    from mmkd.distillation import load_checkpoint_safely
    saved = load_checkpoint_safely(Path(folder) / 'epoch_1.pth')['state_dict']
    MODELS.build(cfg.model).load_state_dict(saved)  # which is strict
    assert all(value.isfinite().all() for value in saved.values())
    assert (Path(folder) / 'accuracy.json').is_file()


def leave_process_group():
    """End a spawned process that has used gloo.

    gloo aborts a process whose peer leaves early, hence the barrier; and now and then one whose
    threads still let go of tensors while its interpreter is taken down (PyTorch's issue 190489),
    hence the exit without that.
    """
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def through_a_shard(codec, value, folder):
    """Encode a batch as a teacher cache does, write and read it, decode it."""
    from mmkd.teacher_cache.outputs import StoredOutputs, columns
    from mmkd.teacher_cache.shards import Shard, written_shard
    with written_shard(folder / 'a.shard') as writer:
        for arrays in codec.encode(value):
            writer.add(arrays)
    shard = Shard(folder / 'a.shard')
    outputs = StoredOutputs({'t': [shard.read(i) for i in range(len(shard))]})
    return codec.decode(columns(outputs.entries['t'], torch.device('cpu')))
