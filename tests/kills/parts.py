"""Data, a metric and a hook of the trainings."""

import os
import random
from pathlib import Path

import numpy as np
import torch
from helpers import NoiseDetection
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook

from mmkd.registry import DATASETS, HOOKS, METRICS


@DATASETS.register_module(force=True)
class Shaken(NoiseDetection):
    """Images of noise, mirrored and darkened as three generators draw it; or, if `still`, as is."""

    def __init__(self, still=False, **options):
        super().__init__(**options)
        self.still = still

    def get_data_info(self, index):
        instances = super().__getitem__(index)['data_samples'].gt_instances
        return dict(img_path=f'{index}.jpg', img_id=str(index), width=self.size, height=self.size,
                    sample_idx=index, instances=[
                        dict(bbox=box, bbox_label=label, ignore_flag=0) for box, label in
                        zip(instances.bboxes.tolist(), instances.labels.tolist(), strict=True)])

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if not self.still:
            image = item['inputs'].roll(random.randrange(16), 1)
            image = image.flip(2) if torch.rand(()) < 0.5 else image
            item['inputs'] = (image * (1 - 0.5 * np.random.rand())).to(torch.uint8)
        return item


@METRICS.register_module(force=True)
class MeanScore(BaseMetric):
    """The mean score of all detections, which says nothing but changes with every weight."""

    def process(self, data_batch, data_samples):
        self.results.extend(float(score) for sample in data_samples
                            for score in sample['pred_instances']['scores'])

    def compute_metrics(self, results):
        return dict(mean_score=float(np.mean(results)))


@HOOKS.register_module(force=True)
class Footprint(Hook):
    """Writes down the memory and the open files of this process now and then."""

    def __init__(self, every):
        self.every = every

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (runner.iter + 1) % self.every == 0:
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            megabytes = pages * os.sysconf('SC_PAGE_SIZE') / 1e6
            files = len(os.listdir('/proc/self/fd'))
            with open(Path(runner.work_dir, 'footprint.txt'), 'a') as file:
                file.write(f'{runner.iter + 1} {megabytes:.1f} {files}\n')


@HOOKS.register_module(force=True)
class RandomStates(Hook):
    """Puts the states of all generators into each checkpoint, for the comparison."""

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['random_states'] = dict(
            python=list(random.getstate()[1]), torch=torch.get_rng_state(),
            numpy=torch.from_numpy(np.random.get_state()[1].astype(np.int64)))
