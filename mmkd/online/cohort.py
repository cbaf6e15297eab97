"""A cohort: classifiers that are trained together and learn from one another."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkd.classification.classifier import Classifier
from mmkd.classification.data import ClassificationSample
from mmkd.errors import UserError
from mmkd.registry import MODELS

__all__ = ['Cohort']

# A name begins a key of the losses, where mmengine adds up whatever has `loss` in its key, and is
# the name of a file beside the run's checkpoints.
NAME = re.compile(r'(?!epoch_|iter_|best_|ensemble$)(?!.*loss)[A-Za-z0-9_-]+')


@MODELS.register_module()
class Cohort(BaseModel):
    r"""At least two classifiers that see the same batches, each with its own cross-entropy.

    ``L = sum_m CE_m``; what they learn from one another are terms of the run, see
    :mod:`mmkd.distillation`.

    Taps: those of :class:`Classifier` behind ``members.NAME.``; a wildcard such as
    ``members.*.head.fc`` stands for all members, in the order of the config.

    Args:
        members: for each name the registry config of a :class:`Classifier`. They may be different
            networks, for the same classes.
        data_preprocessor: registry config, for all members; with ``views`` = ``M``, their number,
            member ``i`` trains on view ``i`` of every image.

    Raises:
        UserError: there is one member only, a name does not serve, an entry is no classifier, or
            the members tell different numbers of classes apart.
    """

    def __init__(self, members: Mapping[str, dict], data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        _check_names(members)
        super().__init__(data_preprocessor, init_cfg)
        self.members = nn.ModuleDict({name: MODELS.build(config)
                                      for name, config in members.items()})
        _check_members(self.members)

    def forward(self, inputs: Tensor, data_samples: ClassificationSample | None = None,
                mode: str = 'tensor') -> Any:
        """Run every member.

        Args:
            inputs: ``(B, 3, H, W)`` float32, normalised; or ``(M, B, 3, H, W)``, one view for each
                of the ``M`` members.
            data_samples: the batch's labels.
            mode: ``'tensor'`` for a dict of the members' logits ``(B, num_classes)`` by name;
                ``'loss'`` for a dict of every member's losses and top-1 accuracy, as
                ``NAME.loss_ce`` and ``NAME.top1``; ``'predict'`` for a list of the one sample with
                ``member_scores``, the softmax of every member by name, and ``scores``, their mean,
                which is what the *ensemble* says (a mean of probabilities, not of logits).

        Raises:
            UserError: the number of views is not the number of members.
        """
        views = self._views(inputs)
        if mode == 'loss':
            return {f'{name}.{key}': value for name, member in self.members.items()
                    for key, value in member(views[name], data_samples, mode='loss').items()}
        logits = {name: member(views[name]) for name, member in self.members.items()}
        if mode == 'predict':
            data_samples.member_scores = {name: z.float().softmax(1) for name, z in logits.items()}
            data_samples.scores = torch.stack(list(data_samples.member_scores.values())).mean(0)
            return [data_samples]
        return logits

    def _views(self, inputs: Tensor) -> dict[str, Tensor]:
        if inputs.ndim == 4:
            return dict.fromkeys(self.members, inputs)
        if len(inputs) != len(self.members):
            raise UserError(f'a cohort of {len(self.members)} members was given {len(inputs)} '
                            f'views of every image: set views={len(self.members)} in its '
                            'data_preprocessor')
        return dict(zip(self.members, inputs, strict=True))


def _check_names(members: Mapping[str, dict]) -> None:
    if len(members) < 2:
        raise UserError(f'a cohort has at least two members, and this one has '
                        f'{", ".join(members) or "none"}: name another network, the same one again '
                        'if you like (MEMBERS=resnet32,resnet32)')
    for name in members:
        if not NAME.fullmatch(name) or hasattr(nn.ModuleDict, name):
            raise UserError(f"'{name}' cannot be the name of a member: take letters, digits and _ "
                            'without the word loss, such as resnet32_1')


def _check_members(members: nn.ModuleDict) -> None:
    for name, member in members.items():
        if not isinstance(member, Classifier):
            raise UserError(f"member '{name}' of the cohort is a {type(member).__name__}: give the "
                            'config of a Classifier')
    classes = {name: member.head.fc.out_features for name, member in members.items()}
    if len(set(classes.values())) > 1:
        raise UserError(f'the members of a cohort must tell the same classes apart, and they have '
                        f'{", ".join(f"{n} ({name})" for name, n in classes.items())}: give them '
                        'one num_classes')
