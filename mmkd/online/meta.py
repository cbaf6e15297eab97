"""Train a network by what the training with its outputs leads to."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.func import functional_call

from mmkd.distillation.branch import Branch
from mmkd.distillation.distillation_hook import DistillationHook
from mmkd.distillation.losses.l_mcl import StageOutputs, cross_entropies
from mmkd.distillation.taps import TapRecorder, forward_for_taps
from mmkd.distillation.teachers import undisturbed_random_state
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.mmengine_private import goes_on_from, trains
from mmkd.online.heads import LayerwiseHeads
from mmkd.registry import HOOKS

__all__ = ['MetaOptimizeHook', 'meta_gradient']

CHECKPOINT_KEY = 'meta_optimizer'

Weights = Mapping[str, Tensor]
Slope = Callable[[Weights, Weights], Weights]


def meta_gradient(inner: Sequence[Slope], outer: Callable[[Weights], Tensor], weights: Weights,
                  meta: Weights, lr: float, momentum: float = 0.0,
                  weight_decay: float = 0.0) -> dict[str, Tensor]:
    r"""Return the gradient, with respect to ``phi``, of a loss after steps of gradient descent.

    With ``theta_0`` the ``weights``, ``v_0 = 0`` and, for each inner step,

    ``v_{t+1} = mu v_t + g_t(theta_t, phi) + lambda theta_t``,
    ``theta_{t+1} = theta_t - eta v_{t+1}``,

    it is ``d outer(theta_K) / d phi``. The steps are followed back one by one: with
    ``a = d outer / d theta_{t+1}``, ``b`` the part of ``d outer / d v_{t+1}`` that comes from later
    velocities, and ``c = b - eta a``,

    ``d phi += c . d g_t / d phi``, ``a <- a + lambda c + c . d g_t / d theta``, ``b <- mu c``,

    which is exact, and needs the memory of one step, not of all.

    Args:
        inner: the ``g_t(theta, phi)``, for each name in ``weights`` a tensor that can be
            differentiated once more: the gradient of a loss, or of one that holds parts constant.
            Each is called twice with the same arguments and must not depend on chance.
        outer: the loss of the last weights, a scalar.
        weights: ``theta_0``; not changed.
        meta: ``phi``; not changed.
        lr: ``eta``.
        momentum: ``mu``.
        weight_decay: ``lambda``.

    Returns:
        for each name in ``meta`` the gradient.
    """
    phi = _leaves(meta)
    theta, velocity = _leaves(weights), _zeros(weights)
    path = []
    for slope in inner:
        path.append((slope, theta))
        gradient = slope(theta, phi)
        velocity = {k: momentum * velocity[k] + gradient[k].detach()
                    + weight_decay * theta[k].detach() for k in theta}
        theta = _leaves({k: theta[k].detach() - lr * velocity[k] for k in theta})
    a, b, total = _gradients([outer(theta)], theta), _zeros(weights), _zeros(meta)
    for slope, theta in reversed(path):
        c = {k: b[k] - lr * a[k] for k in a}
        gradient = slope(theta, phi)
        along = torch.stack([(gradient[k] * c[k]).sum() for k in c]).sum()
        second = _gradients([along], {('theta', k): v for k, v in theta.items()}
                            | {('phi', k): v for k, v in phi.items()})
        a = {k: a[k] + weight_decay * c[k] + second['theta', k] for k in a}
        b = {k: momentum * c[k] for k in c}
        total = {k: total[k] + second['phi', k] for k in total}
    return total


def _leaves(values: Weights) -> dict[str, Tensor]:
    return {name: value.detach().requires_grad_() for name, value in values.items()}


def _zeros(values: Weights) -> dict[str, Tensor]:
    return {name: torch.zeros_like(value) for name, value in values.items()}


def _gradients(values: Sequence[Tensor], leaves: Mapping[Any, Tensor],
               factors: Sequence[Tensor] | None = None,
               create_graph: bool = False) -> dict[Any, Tensor]:
    """Gradients of ``sum_i factors_i . values_i`` by name, 0 of what they do not depend on."""
    if not any(value.requires_grad for value in values):
        return _zeros(leaves)
    gradients = torch.autograd.grad(values, list(leaves.values()), factors, allow_unused=True,
                                    create_graph=create_graph)
    return {name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)}


@HOOKS.register_module()
class MetaOptimizeHook(Hook):
    """Trains the meta-network of layer-wise MCL, see :class:`~mmkd.online.heads.LayerwiseHeads`.

    Every ``interval`` iterations, on the batch of that iteration and from the weights behind it:
    ``inner_steps`` steps of SGD on the layer-wise contrastive loss, whose weights the meta-network
    gives, one step on the classification loss (the cross-entropies of all stages of all
    members), and then the gradient of the classification loss with respect to the meta-network,
    through all of these steps (:func:`meta_gradient`), for one step of its own SGD with Nesterov
    momentum. Members, heads, their optimizer, the statistics of batch norms and the random state
    are left as they were. The learning rate is the current one of the members', for both. All in
    float32. In a process group each process takes its own batch and the gradients are averaged.
    Not for SyncBatchNorm, which has no second derivative.

    Source: C. Yang et al., TPAMI 45(8), 2023, arXiv 2207.11518, and the authors' code, from which
    the inner steps have their momentum, from rest each time, and weight decay. It differs: it
    takes the first iteration of every ``interval`` in an epoch, not the last of every ``interval``
    in the run; its batch norms keep what they saw of one extra step; and its gradient is not
    quite that of its steps, since it follows the momentum back without the factor weight decay
    and takes the imitated distributions to be the same whatever the steps before. Here it is.

    Args:
        interval: iterations from one meta-optimisation to the next.
        inner_steps: steps on the contrastive loss.
        momentum: of the inner steps and of the meta-network's own.
        weight_decay: of both.

    Raises:
        UserError: ``interval`` or ``inner_steps`` is below 1; when a run starts, there is no term
            with LayerwiseHeads; when it resumes, the checkpoint has no state of this hook.
    """

    def __init__(self, interval: int = 50, inner_steps: int = 2, momentum: float = 0.9,
                 weight_decay: float = 5e-4) -> None:
        if interval < 1 or inner_steps < 1:
            raise UserError(f'MetaOptimizeHook has interval {interval} and inner_steps '
                            f'{inner_steps}: give numbers of at least 1')
        self.interval = interval
        self.inner_steps = inner_steps
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.optimizer: torch.optim.SGD | None = None
        self._due = False
        self._batch: tuple[Tensor, Any] | None = None

    def before_run(self, runner: Runner) -> None:
        """Find the meta-network that the DistillationHook has built."""
        if not trains(runner):
            return
        term, branch = _layerwise_term(runner)
        student = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._cohort = _TappedCohort(student, branch.connectors[0], term.taps)
        self._loss = branch.losses[0]
        self._meta = branch.connectors[0].matching
        self.optimizer = torch.optim.SGD(
            self._meta.parameters(), lr=_lr(runner), momentum=self.momentum,
            weight_decay=self.weight_decay, nesterov=self.momentum > 0)

        def keep_batch(module: nn.Module, args: tuple, kwargs: dict) -> None:
            given = dict(zip(('inputs', 'data_samples', 'mode'), args, strict=False)) | kwargs
            if self._due and module is student and given.get('mode') == 'loss':
                self._batch = given['inputs'], given['data_samples']

        student.register_forward_pre_hook(keep_batch, with_kwargs=True)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember this iteration's batch if it is its turn."""
        self._due = self.every_n_train_iters(runner, self.interval)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Train the meta-network."""
        if not self._due:
            return
        (inputs, samples), self._batch, self._due = self._batch, None, False
        with undisturbed_random_state():
            compared = self._loss.compared_with(samples.labels, getattr(samples, 'indices', None))
        with torch.autocast(device_type=inputs.device.type, enabled=False):
            gradients = self._gradients(inputs, samples.labels, compared, _lr(runner))
        for name, parameter in self._meta.named_parameters():
            parameter.grad = gradients[name]
            all_reduce(parameter.grad, 'mean')
        self.optimizer.param_groups[0]['lr'] = _lr(runner)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _gradients(self, inputs: Tensor, labels: Tensor, compared: Tensor, lr: float
                   ) -> dict[str, Tensor]:
        def contrastive(weights: Weights, meta: Weights) -> Weights:
            # What is imitated is constant in the loss, but another one after other steps: the
            # gradient stops here and not in the loss, so that its own derivative is whole.
            outputs = self._cohort.called_with(weights, meta, inputs)
            values = [*(h for member in outputs.embeddings for h in member), outputs.weights]
            own = [value.view_as(value) for value in values]
            rest = iter(own)
            student = outputs._replace(weights=own[-1], embeddings=[
                list(islice(rest, len(member))) for member in outputs.embeddings])
            loss = self._loss.layerwise(student, compared, outputs.embeddings)
            factors = torch.autograd.grad(loss, own, create_graph=True)
            return _gradients(values, weights, factors, create_graph=True)

        def classification(weights: Weights) -> Tensor:
            outputs = self._cohort.called_with(weights, {}, inputs)
            return cross_entropies([z for member in outputs.logits for z in member], labels)

        def descent(weights: Weights, meta: Weights) -> Weights:
            return _gradients([classification(weights)], weights, create_graph=True)

        weights = {name: parameter for name, parameter in self._cohort.named_parameters()
                   if parameter.requires_grad}
        return meta_gradient([contrastive] * self.inner_steps + [descent], classification,
                             weights, dict(self._meta.named_parameters()), lr, self.momentum,
                             self.weight_decay)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the state of the meta-network's optimizer; its weights are saved with the term."""
        if self.optimizer is not None:
            checkpoint[CHECKPOINT_KEY] = self.optimizer.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore it in a resumed run.

        Raises:
            UserError: the checkpoint does not have it.
        """
        if self.optimizer is None or goes_on_from(runner) is None:
            return
        if CHECKPOINT_KEY not in checkpoint:
            raise UserError('cannot resume: the checkpoint was written without MetaOptimizeHook: '
                            'resume with the custom_hooks it was trained with')
        self.optimizer.load_state_dict(checkpoint[CHECKPOINT_KEY])


class _TappedCohort(nn.Module):
    """Cohort and heads as one function of their parameters."""

    def __init__(self, cohort: nn.Module, heads: LayerwiseHeads, taps: Sequence[str]) -> None:
        super().__init__()
        self.cohort = cohort
        self.heads = heads
        self.taps = taps
        self.recorder = TapRecorder(cohort, taps)

    def forward(self, inputs: Tensor) -> StageOutputs:
        self.recorder.start()
        forward_for_taps(self.cohort, inputs)
        values = self.recorder.take()
        return self.heads([values[tap] for tap in self.taps], learn_matching=True)

    def called_with(self, weights: Weights, meta: Weights, inputs: Tensor) -> StageOutputs:
        """Run with other parameters, buffers that may change and always the same dropout."""
        buffers = {name: buffer.clone() for name, buffer in self.named_buffers()}
        meta = {f'heads.matching.{name}': value for name, value in meta.items()}
        with undisturbed_random_state():
            return functional_call(self, {**weights, **meta, **buffers}, (inputs,))


def _layerwise_term(runner: Runner) -> tuple[Term, Branch]:
    terms = [term for hook in runner.hooks if isinstance(hook, DistillationHook)
             for term in hook.terms]
    for term in terms:
        for branch in term.branches.values():
            if branch.connectors and isinstance(branch.connectors[0], LayerwiseHeads):
                return term, branch
    raise UserError("MetaOptimizeHook finds no term with connector=dict(type='LayerwiseHeads'): "
                    'add one of weight above 0, or take the hook out')


def _lr(runner: Runner) -> float:
    """The rate that the heads are trained with."""
    return max(group['lr'] for group in runner.optim_wrapper.optimizer.param_groups)
