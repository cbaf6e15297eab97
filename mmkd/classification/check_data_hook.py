"""Refuse training data that a classifier cannot be trained on."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmkd.errors import UserError
from mmkd.registry import HOOKS

__all__ = ['CheckTrainingDataHook']


@HOOKS.register_module()
class CheckTrainingDataHook(Hook):
    """Stops a run whose images give no batch, or have more classes than the classifier.

    Without it the first trains nothing and says nothing, and the second ends with an index out of
    bounds, on a GPU at some later line.

    Raises:
        UserError: either is so.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compare the data with the batch size and with the classifier's last layer."""
        loader = runner.train_dataloader
        if not len(loader):
            raise UserError(f'{len(loader.dataset)} training images do not fill a batch of '
                            f'{loader.batch_size}: lower train_dataloader.batch_size, or use more '
                            'images')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        outputs = getattr(getattr(model, 'head', None), 'fc', None)
        classes = getattr(loader.dataset, 'metainfo', {}).get('classes', ())
        if outputs is not None and len(classes) > outputs.out_features:
            raise UserError(f'the training data has {len(classes)} classes and the classifier '
                            f'{outputs.out_features} outputs: set num_classes to {len(classes)}')
