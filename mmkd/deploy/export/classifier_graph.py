"""A classifier as one function from image to probabilities, and what a runtime must know of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from mmkd.classification import Classifier
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.errors import UserError
from mmkd.registry import DATASETS

__all__ = ['ExportableClassifier', 'classifier_metadata']

# Sides of the images of data sets that have one size.
_SIDES = dict(CIFAR10=32, CIFAR100=32, SVHN=32, FashionMNIST=32, TinyImageNet=64,
              TinyImageNet100=32)


class ExportableClassifier(nn.Module):
    """A classifier from the normalised image to probabilities.

    The parts are the classifier's own, shared and not copied; it must be in evaluation mode.

    Args:
        model: A :class:`~mmkd.classification.Classifier`.
    """

    output_names = ('scores',)

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Classify.

        Args:
            image: ``(N, 3, H, W)``, as the model's data preprocessor returns it, in the precision
                of the weights.

        Returns:
            the softmax of the logits, ``(N, num_classes)`` float32.
        """
        return (self.model(image).float().softmax(1),)


def classifier_metadata(model: Classifier) -> ModelMetadata:
    """Collect what a runtime must know from ``model.cfg`` and the data preprocessor.

    Classes that neither the checkpoint nor the config names are called ``'0'``, ``'1'``, ...

    Raises:
        UserError: If the class names do not fit the model, or the test data set is unknown.
    """
    count = model.head.fc.out_features
    classes = tuple(model.dataset_meta.get('classes') or map(str, range(count)))
    if len(classes) != count:
        raise UserError(f'the model has {count} classes but its checkpoint names {len(classes)}: '
                        'export it with the config that it was trained with')
    preprocessor = model.data_preprocessor
    # The data sets give RGB already.
    return ModelMetadata(
        task='classification', classes=classes, channel_order='RGB',
        mean=tuple(preprocessor.mean.flatten().tolist()),
        std=tuple(preprocessor.std.flatten().tolist()), **_scaling(model.cfg))


def _scaling(cfg: Config) -> dict[str, Any]:
    """How the config's test data set brings its images to their size."""
    dataset: Mapping[str, Any] = cfg.test_dataloader.dataset
    name = dataset['type'] if isinstance(dataset['type'], str) else dataset['type'].__name__
    name = name.rpartition('.')[2]
    if name == 'ImageNetFolder':
        side = dataset.get('image_size', 224)
        return _sides(side, side * 8 // 7, 'crop')
    if name == 'ImageFolderInMemory' and dataset.get('image_size'):
        return _sides(dataset['image_size'], dataset['image_size'], 'crop')
    if name in _SIDES:
        return _sides(_SIDES[name], _SIDES[name], 'stretch')
    if name == 'ImageFolderInMemory':
        # Its images have one size, which only they tell.
        height, width = DATASETS.build(dict(dataset)).images.shape[2:]
        return dict(input_size=(height, width), resize_mode='stretch',
                    resize_to=(max(height, width), min(height, width)))
    raise UserError(f"the test data set is a {name}, of which the exporter does not know how it "
                    'scales images: give a config whose test_dataloader has one of '
                    f"{', '.join([*_SIDES, 'ImageFolderInMemory', 'ImageNetFolder'])}")


def _sides(side: int, resize_to: int, mode: str) -> dict[str, str | Sequence[int]]:
    return dict(input_size=(side, side), resize_to=(resize_to, resize_to), resize_mode=mode)
