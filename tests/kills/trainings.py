"""The tiny trainings that are killed: what `mmkd train` is given for each."""

from pathlib import Path

import torch
from archives import write_cifar10
from helpers import centernet, save_teacher

from mmkd.classification import Classifier

ROOT = Path(__file__).parents[2]
TERMS = dict(
    heatmap=dict(type='CenterNetTerm', map='heatmap', loss=dict(type='SoftFocalLoss')),
    wh=dict(type='CenterNetTerm', map='wh', loss=dict(type='WidthHeightLoss')),
    # With a connector, which is trained and has to go on, too.
    feature=dict(type='FeatureTerm', joint='each', loss=dict(type='AttentionLoss')))

DETECTOR = """
_base_ = ['{root}/configs/_base_/default_runtime.py']
model = {model}
train_dataloader = dict(batch_size=2, num_workers={workers},
                        dataset=dict(type='Shaken', length=6),
                        sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(batch_size=4, num_workers=0,
                      dataset=dict(type='Shaken', still=True, length=2),
                      sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='MeanScore')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3),
                     clip_grad=dict(max_norm=35.0))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, begin=0, end=6, by_epoch=False),
                   dict(type='MultiStepLR', milestones=[1], by_epoch=True)]
teachers = {teachers}
terms = {terms}
distill_weights = dict(heatmap=10.0, wh=1.0, feature=20.0)
custom_hooks = [dict(type='DistillationHook'), dict(type='RandomStates')]
"""
FP16 = "\namp = 'fp16'  # its losses are scaled, and the scale has to go on\n"
CACHE = "\nteacher_cache = dict(folder='{folder}/cache', views=3)\n"
ITERATIONS = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=10, val_interval=3)
train_dataloader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
train_dataloader['dataset']['still'] = True  # docs/reliability.md says why
param_scheduler = [dict(type='LinearLR', start_factor=0.1, begin=0, end=6, by_epoch=False)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3), logger=dict(interval=2))
log_processor = dict(by_epoch=False)
"""
NETWORK = 'resnet8'
CIFAR = ['train_dataloader.batch_size=6', 'default_hooks.checkpoint.interval=1',
         'default_hooks.random_states.type=RandomStates', 'param_scheduler.0.by_epoch=True']


class Trainings:
    """What all trainings read, made once: teachers, an archive of images.

    Args:
        folder: for that, and for a folder of each training.
        images: of each of the six files that CIFAR-10 has.
    """

    processes = {'two processes': 2}  # noqa: RUF012
    cached = ('detector, cached teacher',)

    def __init__(self, folder, images=4):
        self.folder = Path(folder)
        (self.folder / 'teachers').mkdir(parents=True)
        self.detector = save_teacher(self.folder / 'teachers', 'detector',
                                     centernet(channels=16, base_channels=8))
        torch.manual_seed(2)
        self.classifier = self.folder / 'teachers/classifier.pth'
        torch.save(Classifier(backbone=dict(type='mmkd.' + NETWORK),
                              num_classes=10).state_dict(), self.classifier)
        write_cifar10(self.folder / 'images', per_batch=images)
        self.commands = {
            'detector, live teachers': self._live, 'detector, cached teacher': self._cached,
            'detector, iterations': self._iterations, 'detector, fp16': self._fp16,
            'classifier, CRD': self._classifier,
            'cohort, PCL': self._cohort('pcl'), 'cohort, L-MCL': self._cohort('l_mcl'),
            'two processes': self._live}

    def arguments(self, name, folder, options=()):
        """Return what `mmkd train` takes for a training in `folder`, which is made."""
        folder.mkdir(parents=True)
        given = self.commands[name](folder)
        if options and '--cfg-options' not in given:
            given.append('--cfg-options')
        return [*given, *options, '--resume', '--work-dir', str(folder / 'work')]

    def _detector(self, folder, more='', workers=0, mean=True):
        teachers = dict(resnet=self.detector) | (dict(mean=dict(ema=0.9)) if mean else {})
        text = DETECTOR.format(root=ROOT, model=centernet().to_dict(), workers=workers, terms=TERMS,
                               teachers=teachers)
        (folder / 'training.py').write_text(text + more.format(folder=folder))
        return [str(folder / 'training.py')]

    def _live(self, folder):
        return self._detector(folder)

    def _cached(self, folder):
        return self._detector(folder, CACHE, workers=1, mean=False)

    def _iterations(self, folder):
        return self._detector(folder, ITERATIONS)

    def _fp16(self, folder):
        return self._detector(folder, FP16)

    def _cifar(self, *choices):
        return [*choices, '--data', 'cifar10', '--data-root', str(self.folder / 'images'),
                '--cfg-options', *CIFAR, 'train_cfg.max_epochs=3']

    def _classifier(self, folder):
        return self._cifar('classifier', '--student', NETWORK, '--method', 'crd', '--teacher',
                           f'{NETWORK}={self.classifier}') + ['terms.crd.loss.num_negatives=8']

    def _cohort(self, method):
        def arguments(folder):
            more = ['custom_hooks.2.interval=2'] if method == 'l_mcl' else []
            return self._cifar('online', '--members', f'{NETWORK},{NETWORK}', '--method',
                               method) + more
        return arguments
