"""An image classifier: a network, a linear layer, cross-entropy."""

from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkd.classification.data import ClassificationSample
from mmkd.classification.weights import convert_state_dict
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['Classifier', 'LinearHead']


class LinearHead(nn.Module):
    """Logits from an embedding: ``(B, D) -> (B, num_classes)``."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, embedding: Tensor) -> Tensor:
        """Compute the logits."""
        return self.fc(embedding)


@MODELS.register_module()
class Classifier(BaseModel):
    r"""A network with a linear layer, trained with cross-entropy.

    ``L = ce_weight / B * sum_b CE(z_b, y_b)``; for a mixed batch (mixup, cutmix)
    ``lam CE(z, y_a) + (1 - lam) CE(z, y_b)``. Of ``V`` views of every image the mean over all
    ``V B`` is taken; every tap then has ``V B`` rows, view after view.

    Taps: ``backbone.stem``, ``backbone.stage<i>`` (after the last ReLU of a stage),
    ``backbone.stage<i>.preact`` (before it), ``backbone.embedding``, ``head.fc`` (logits).

    Args:
        backbone: registry config of a network, see :mod:`mmkd.classification.networks`.
        num_classes: number of classes.
        ce_weight: factor of the cross-entropy, such as the 0.1 that goes with KD's 0.9.
        label_smoothing: share of the label that is spread over all classes, in ``[0, 1)``.
        data_preprocessor: registry config.

    Raises:
        UserError: ``ce_weight`` is negative or ``label_smoothing`` out of range.
    """

    def __init__(self, backbone: dict, num_classes: int, ce_weight: float = 1.0,
                 label_smoothing: float = 0.0, data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not ce_weight >= 0 or not 0 <= label_smoothing < 1:
            raise UserError(f'Classifier has ce_weight {ce_weight} and label_smoothing '
                            f'{label_smoothing}: give ce_weight of at least 0 and label_smoothing '
                            'in [0, 1)')
        self.backbone = MODELS.build(backbone)
        self.head = LinearHead(self.backbone.out_channels, num_classes)
        self.ce_weight = ce_weight
        self.label_smoothing = label_smoothing

    def forward(self, inputs: Tensor, data_samples: ClassificationSample | None = None,
                mode: str = 'tensor') -> Any:
        """Run the network.

        Args:
            inputs: ``(B, 3, H, W)`` float32, normalised; or ``(V, B, 3, H, W)``, ``V`` views of
                every image.
            data_samples: the batch's ``B`` labels; a prediction needs none.
            mode: ``'tensor'`` for logits ``(B, num_classes)``, or ``(V B, num_classes)``;
                ``'loss'`` for a dict of the loss and the top-1 accuracy in percent; ``'predict'``
                for a list of the one sample with ``scores``, the softmax.
        """
        if inputs.ndim == 5:
            inputs = inputs.flatten(0, 1)
        logits = self.head(self.backbone(inputs))
        if mode == 'loss':
            return self._loss(logits, data_samples)
        if mode == 'predict':
            sample = ClassificationSample() if data_samples is None else data_samples
            sample.scores = logits.float().softmax(1)
            return [sample]
        return logits

    def _loss(self, logits: Tensor, sample: ClassificationSample) -> dict[str, Tensor]:
        def cross_entropy(labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

        if 'lam' in sample:
            loss = (sample.lam * cross_entropy(sample.labels_a)
                    + (1 - sample.lam) * cross_entropy(sample.labels_b))
            return dict(loss_ce=self.ce_weight * loss)
        labels = sample.labels.repeat(len(logits) // len(sample.labels))  # once for each view
        top1 = 100 * (logits.detach().argmax(1) == labels).float().mean()
        return dict(loss_ce=self.ce_weight * cross_entropy(labels), top1=top1)

    def convert_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename weights that other libraries published; see :mod:`..classification.weights`."""
        return convert_state_dict(state_dict, self)
