"""One pass of everything on two images, before a run begins."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmkd.distillation.step import Step
from mmkd.distillation.taps import TapRecorder, flat
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term

__all__ = ['bare', 'first_batch', 'rehearse', 'untouched']

IMAGES = 2
"""A batch norm cannot train on one number a channel."""
LARGEST_WEIGHT = 1e4


def rehearse(run: Callable[[], Any], inputs: Tensor, samples: Any, student: nn.Module,
             recorder: TapRecorder, teachers: Sequence[Teacher], terms: Sequence[Term],
             dataset: Any = None, labelled: bool = True) -> None:
    """Run student and teachers once, and let the terms pair leaves and build their branches.

    The student's pass is one of training, so that calls, proposals and queries are those of
    training; afterwards its buffers are as before. Nothing gets a gradient.

    Args:
        run: the student's pass.
        inputs: of a batch, ``(B, 3, H, W)``, as the student takes them.
        samples: of that batch.
        student: the model.
        recorder: of its taps.
        teachers: of the run.
        terms: of the run.
        dataset: the training data, if there is one.
        labelled: whether the batch has labels.

    Raises:
        UserError: a tap is never passed or stands for several tensors, or two leaves do not fit.
    """
    with untouched(student):
        own = recorder.dry_run(run)
    taps = {teacher.name: teacher.tap(
        [tap for term in terms if term.learns_from(teacher.name)
         for tap in term.teacher_patterns()], inputs, samples) for teacher in teachers}
    step = Step(flat(own), teachers, {name: flat(found) for name, found in taps.items()}, samples,
                student, inputs, labelled)
    for term in terms:
        term.pair(own, {name: found for name, found in taps.items() if term.learns_from(name)},
                  step)
    for term in terms:
        term.prepare(step, dataset)


@contextmanager
def untouched(student: nn.Module) -> Iterator[None]:
    """Put the student into training mode, and restore its buffers afterwards.

    A run initialises its weights after this pass, and what a constructor leaves uninitialised until
    then (``level_embed`` of Deformable DETR) may be anything, also no number: here it is 0.
    """
    buffers = {name: buffer.clone() for name, buffer in student.named_buffers()}
    strange = {parameter: parameter.detach().clone() for parameter in student.parameters()
               if not (parameter.detach().abs() < LARGEST_WEIGHT).all()}
    modes = {module: module.training for module in student.modules()}
    student.train()
    for parameter in strange:
        parameter.data.zero_()
    for module in student.modules():
        if hasattr(module, 'set_epoch'):
            module.set_epoch(0)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for name, buffer in student.named_buffers():
            buffer.copy_(buffers[name])
        for parameter, values in strange.items():
            parameter.data.copy_(values)


def first_batch(loader: DataLoader, student: nn.Module) -> tuple[Tensor, Any]:
    """Return inputs and data samples of the first two images, as mmengine gives them to a model."""
    # TOOD's head and YOLOX's resizing ask there, and mmengine says it when training begins.
    for name in ('epoch', 'iter'):
        MessageHub.get_current_instance().update_info(name, 0)
    dataset = loader.dataset
    numbers = [i % len(dataset) for i in range(IMAGES)]
    fetch = getattr(dataset, '__getitems__', None)
    samples = loader.collate_fn(fetch(numbers) if fetch else [dataset[i] for i in numbers])
    # A preprocessor that splits a batch into pairs needs a batch of pairs.
    augment = not getattr(student.data_preprocessor, 'pairs', False)
    batch = student.data_preprocessor(samples, augment)
    return batch['inputs'], batch.get('data_samples')


def bare(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper such as DDP, or itself."""
    return model.module if is_model_wrapper(model) else model
