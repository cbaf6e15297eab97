"""The rest of a classifier, behind one of its stages, once more."""

from copy import deepcopy

from torch import Tensor, nn

from mmkd.classification.networks.base import TappedNetwork, init_convolutions
from mmkd.errors import UserError

__all__ = ['Tail']


class Tail(nn.Module):
    """A copy of what follows a stage of a classifier, with weights of its own.

    The later stages, ``final``, the pooling and the linear layer, of the same architecture, drawn
    anew. Methods with branches or auxiliary classifiers train it beside the network.

    Args:
        model: a :class:`~mmkd.classification.Classifier`; it is not changed.
        stage: number of the stage (from 1) whose output is continued. With that of the last
            stage, pooling and linear layer are all.

    Raises:
        UserError: the network has no such stage, or is not mmkd's.
    """

    def __init__(self, model: nn.Module, stage: int) -> None:
        super().__init__()
        backbone = model.backbone
        if not isinstance(backbone, TappedNetwork):
            raise UserError(f'{type(backbone).__name__} has no stages that could be copied, as '
                            "this method does: take one of mmkd's own networks")
        if not 1 <= stage <= backbone.num_stages:
            raise UserError(f'{type(backbone).__name__} has no stage {stage}: give a number from 1 '
                            f'to {backbone.num_stages}')
        parts = [getattr(backbone, f'stage{number}')
                 for number in range(stage + 1, backbone.num_stages + 1)]
        parts += [backbone.final, backbone.embedding]
        self.layers = nn.Sequential(*(deepcopy(part) for part in parts if part is not None))
        self.fc = deepcopy(model.head.fc)
        for module in self.modules():
            # What records the original must not listen to the copy.
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()
        init_convolutions(self.layers)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Continue from the stage's output.

        Args:
            feature: ``(B, C, H, W)``.

        Returns:
            the embedding, ``(B, D)``, and the logits, ``(B, num_classes)``.
        """
        embedding = self.layers(feature)
        return embedding, self.fc(embedding)
