"""What is looked at before the first epoch: are the teachers any good, and does each term teach?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import apply_to
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmkd.distillation.branch_optimizer import trainable
from mmkd.distillation.entries import build_entry
from mmkd.distillation.gradients import gradient_norm, own_loss, tapped_tensors
from mmkd.distillation.step import Step
from mmkd.distillation.teachers import Teacher
from mmkd.distillation.term import Term
from mmkd.errors import UserError
from mmkd.random_state import undisturbed_random_state

__all__ = ['TeacherReport', 'check_connectors', 'check_first_step', 'check_teachers',
           'evaluate_teacher', 'swapped_classes', 'warnings_about']

IMAGES = 50
CHANCE = 0.02
"""An mAP below is no knowledge."""
RAW_PIXELS = 20.0
"""Normalised inputs have a standard deviation near 1, pixels from 0 to 255 one near 60."""


class TeacherReport(NamedTuple):
    """How a teacher does on validation images, fed as in this run."""

    name: str
    metric: str
    value: float
    images: int
    input_std: float
    swapped: dict[str, str]
    """Predicted class by true class, where another order of the classes would explain more."""


def check_teachers(runner: Runner, entries: Mapping[str, Mapping[str, Any]], student: nn.Module,
                   progressive: bool) -> dict[str, Any]:
    """Log how each teacher does beside the student, and warn of what makes it a bad one.

    The first process does it alone: nothing here waits for the others. What cannot be evaluated is
    left out, and one line says so.

    Args:
        runner: about to train.
        entries: ``teachers`` of the config.
        student: the model.
        progressive: whether the teachers should be ordered from weak to strong.

    Returns:
        the ``teachers``' reports and the ``warnings``, for ``check.json``; or nothing.
    """
    entries = {name: entry for name, entry in entries.items()
               if 'checkpoint' in entry}  # others are made of the student
    if not entries or not is_main_process():
        return {}
    with undisturbed_random_state():
        reason = _obstacle(runner)
        if reason:
            runner.logger.info(f'The teachers were not evaluated before training: {reason}')
            return dict(warnings=[f'The teachers were not evaluated: {reason}'])
        reports = [_report(runner, name, entry, student) for name, entry in entries.items()]
    reports = [one for one in reports if one is not None]
    warnings = warnings_about(reports, progressive)
    for sentence in warnings:
        runner.logger.warning(sentence)
    return dict(teachers=[one._asdict() for one in reports], warnings=warnings)


def _obstacle(runner: Runner) -> str | None:
    if runner.val_loop is None or not len(runner.val_dataloader.dataset):
        return 'there are no validation images'
    sample = runner.val_dataloader.dataset[0]
    boxes = isinstance(sample, dict) and 'gt_instances' in sample.get('data_samples', {})
    return None if boxes else ('that is done for detectors alone, and these validation images come '
                               'without boxes')


def _report(runner: Runner, name: str, entry: Mapping[str, Any], student: nn.Module
            ) -> TeacherReport | None:
    entry = {key: value for key, value in entry.items() if key != 'compile'}
    try:
        teacher = build_entry(name, entry, student, next(student.parameters()).device)
        report = evaluate_teacher(runner, teacher, student)
    except Exception as error:  # a teacher need not predict anything in order to teach
        runner.logger.info(f"Teacher '{name}' was not evaluated before training: "
                           f'{type(error).__name__}: {error}')
        return None
    log = runner.message_hub.log_scalars.get(f'val/{report.metric}')
    known = 'not known yet' if log is None else f'{log.current():.3f}'
    runner.logger.info(f"Teacher '{name}': {report.metric} {report.value:.3f} on "
                       f'{report.images} validation images; the student: {known}')
    return report


@torch.no_grad()
def evaluate_teacher(runner: Runner, teacher: Teacher, student: nn.Module) -> TeacherReport:
    """Evaluate a teacher on up to 50 evenly spaced validation images.

    The images go through the student's data preprocessor and the teacher's own renormalisation,
    the way they will in training.

    Args:
        runner: of the run, whose validation set and metric are used.
        teacher: not rewritten for its taps yet; a copy that training does not use.
        student: whose data preprocessor is used.
    """
    dataset = runner.val_dataloader.dataset
    count = min(IMAGES, len(dataset))
    chosen = [i * len(dataset) // count for i in range(count)]
    evaluator = runner.build_evaluator(runner.cfg.val_evaluator)
    evaluator.dataset_meta = classes = dataset.metainfo
    index = _labels_of_student(teacher.classes, classes.get('classes'))
    pairs, stds, images = [], [], []
    with undisturbed_random_state():
        for i in chosen:
            batch = pseudo_collate([dataset[i]])
            data = student.data_preprocessor(batch, False)
            inputs = teacher._own_inputs(data['inputs'], data['data_samples'], {})
            stds.append(inputs.std().item())
            found = teacher.model(inputs, data['data_samples'], mode='predict')
            _translate(found[0].pred_instances, index)
            pairs += _matches(found[0])
            images.append(getattr(found[0], 'img_id', None))
            evaluator.process(data_samples=found, data_batch=batch)
        name, value = _main(_computed(evaluator, images))
    return TeacherReport(teacher.name, name, value, count, float(np.mean(stds)),
                         swapped_classes(pairs, classes['classes']))


def _labels_of_student(teacher: Sequence[str] | None, student: Sequence[str] | None
                       ) -> Tensor | None:
    """Return the student's label of each of the teacher's, -1 where it has none."""
    if teacher is None or student is None or tuple(teacher) == tuple(student):
        return None
    return torch.tensor([list(student).index(name) if name in student else -1 for name in teacher])


def _translate(instances: Any, index: Tensor | None) -> None:
    if index is not None:
        labels = index.to(instances.labels.device)[instances.labels]
        instances.labels = labels.clamp(min=0)
        instances.scores = instances.scores * (labels >= 0)


def _matches(sample: Any) -> list[tuple[int, int]]:
    """Return (true, predicted) class of each object that a prediction overlaps by half."""
    from mmdet.structures.bbox import bbox_overlaps  # the heart needs no detectors otherwise

    truth, found = sample.gt_instances, sample.pred_instances
    boxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
    if not len(boxes) or not len(found):
        return []
    overlaps = bbox_overlaps(boxes.to(found.bboxes), found.bboxes) >= 0.5
    best = (overlaps * found.scores).max(1)
    return [(int(true), int(label)) for true, label, score in
            zip(truth.labels, found.labels[best.indices], best.values, strict=True) if score > 0]


def _computed(evaluator: Evaluator, images: Sequence[Any]) -> dict[str, float]:
    """Return the metrics of this process's results; ``evaluate`` would wait for other processes."""
    found = {}
    for metric in evaluator.metrics:
        if hasattr(metric, 'img_ids'):  # CocoMetric looks at all of its file otherwise
            metric.img_ids = images
        results = apply_to(metric.results, lambda x: hasattr(x, 'cpu'), lambda x: x.cpu())
        for name, value in metric.compute_metrics(results).items():
            found[f'{metric.prefix}/{name}' if metric.prefix else name] = value
    return found


def _main(metrics: Mapping[str, float]) -> tuple[str, float]:
    """Pick the mAP: 0 where nothing was predicted, nan where there was nothing to find."""
    if not metrics:
        return 'mAP', 0.0
    name = next((name for name in metrics if name.endswith('mAP')), next(iter(metrics)))
    value = float(metrics[name])
    return name, value if value >= 0 else math.nan


def swapped_classes(pairs: Sequence[tuple[int, int]], classes: Sequence[str]) -> dict[str, str]:
    """Say which classes seem to stand for each other.

    Args:
        pairs: true and predicted class of objects that were found.
        classes: their names.

    Returns:
        predicted by true name, where one permutation of the classes makes at least half of
        at least ten objects right, and less than half of these are right as it is; else empty.
        One class alone proves nothing: a weak teacher may take everything for the same class.
    """
    confusion = np.zeros((len(classes), len(classes)))
    for pair in pairs:
        confusion[pair] += 1
    rows, columns = linear_sum_assignment(-confusion)
    right = confusion[rows, columns].sum()
    if len(pairs) < 10 or right < len(pairs) / 2 or confusion.trace() >= right / 2:
        return {}
    swapped = {classes[row]: classes[column] for row, column in zip(rows, columns, strict=True)
               if row != column and confusion[row, column]}
    return swapped if len(swapped) > 1 else {}


def warnings_about(reports: Sequence[TeacherReport], progressive: bool) -> list[str]:
    """Return one sentence for everything that makes a teacher a bad one."""
    found = []
    for one in reports:
        name = f"teacher '{one.name}'"
        ignorant = one.metric.endswith('mAP') and one.value < CHANCE
        if one.swapped:
            pairs = ', '.join(f"'{true}' for '{said}'" for true, said in one.swapped.items())
            found.append(f'{name} takes {pairs}: its classes are in another order than its '
                         'checkpoint says; correct meta.dataset_meta.classes there, or the '
                         'classes of this config')
        elif ignorant and one.input_std > RAW_PIXELS:
            found.append(f'{name} knows nothing ({one.metric} {one.value:.3f}) and is fed pixels '
                         f'that are not normalised (standard deviation {one.input_std:.0f}): give '
                         'its config the mean and std of data_preprocessor it was trained with')
        elif ignorant:
            found.append(f'{name} knows nothing ({one.metric} {one.value:.3f} on {one.images} '
                         'validation images): it may be another checkpoint, or trained on other '
                         'data or another input size; test it by mmkd test')
    values = [one.value for one in reports if not math.isnan(one.value)]
    if progressive and values != sorted(values):
        order = ', '.join(f'{one.name} {one.value:.3f}' for one in reports)
        found.append("schedule='progressive' goes from weak to strong, and these teachers do not: "
                     f'{order}; reorder `teachers`')
    return found


def check_connectors(terms: Sequence[Term], optim_wrapper: Any) -> None:
    """Check that everything the terms train is in the optimizer.

    Raises:
        UserError: a parameter is not.
    """
    groups = getattr(optim_wrapper, 'param_groups', [])  # several optimizers have none
    known = {id(p) for group in groups for p in group['params']}
    for term in terms:
        for teacher, branch in term.branches.items():
            if any(id(p) not in known for p in trainable(branch)):
                raise UserError(f"the connector of term '{term.name}' to '{teacher}' is not in the "
                                'optimizer and would never learn: build no optimizer after the '
                                'run has started')


def check_first_step(terms: Sequence[Term], step: Step, own: Mapping[str, Any],
                     losses: Mapping[str, tuple[float, Tensor]], logger: MMLogger
                     ) -> dict[str, Any]:
    """Print one table of the terms, and stop if one of them cannot teach.

    Args:
        terms: of the run.
        step: its first.
        own: the student's own losses.
        losses: weight and unweighted loss of each term.
        logger: where the table goes.

    Returns:
        the ``terms`` of the table and the ``warnings``, for ``check.json``.

    Raises:
        UserError: a loss is not finite, or one above 0 is cut off from the student's taps. Where
            the gradient is 0 for now, as behind a connector that starts at 0, a warning says so.
    """
    rows, warnings, found = [
        'first step: term, loss, weight, gradient over that of the own loss'], [], []
    for term in terms:
        weight, loss = losses[term.name]
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(f"term '{term.name}' has the loss {value} in the first step: look at "
                            'its teachers\' outputs, or take it out')
        try:
            norm, reference = _norms(term, step, own, loss)
        except RuntimeError as error:  # a compiled student may not keep its graph
            logger.info(f"term '{term.name}': gradients were not measured ({error})")
            continue
        if term.needs_teachers and value > 0 and term.factor > 0 and _cut_off(term, step, loss):
            raise UserError(f"term '{term.name}' has a loss ({value:.3g}) and no gradient at "
                            f"{', '.join(term.taps)}: its loss is cut off from the student "
                            '(detach, no_grad)')
        ratio = weight * norm / reference if reference else math.nan
        shown = f'{weight:.4g}' if term.gradient_share is None else 'by share'
        rows.append(f'  {term.name}, {value:.4g}, {shown}, {ratio:.2g}')
        found.append(dict(name=term.name, loss=value, weight=weight, share=term.gradient_share,
                          gradient=ratio))
        if not _still_the_student(term, step):
            warnings += _warnings(term, value, ratio)
    logger.info('\n'.join(rows))
    for sentence in warnings:
        logger.warning(sentence)
    return dict(terms=found, warnings=warnings)


def _norms(term: Term, step: Step, own: Mapping[str, Any], loss: Tensor
           ) -> tuple[float, float]:
    tensors = tapped_tensors(term, step)
    return gradient_norm(loss, tensors), gradient_norm(own_loss(own), tensors)


def _cut_off(term: Term, step: Step, loss: Tensor) -> bool:
    """Tell whether no path leads from a loss to what it taps; a gradient of 0 is no proof."""
    wanted = [tensor for tensor in tapped_tensors(term, step) if tensor.requires_grad]
    if not loss.requires_grad:
        return True
    found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    return all(gradient is None for gradient in found)


def _still_the_student(term: Term, step: Step) -> bool:
    """Tell whether all who teach a term begin as the student and have nothing to say yet."""
    if not term.needs_teachers:
        return False
    taught_by = [step.teacher(name) for name, _ in term.sources(step)]
    return all(one is not None and one.begins_as_the_student for one in taught_by)


def _warnings(term: Term, value: float, ratio: float) -> list[str]:
    if not term.needs_teachers or term.factor == 0:
        return []
    if value == 0:
        return [f"term '{term.name}' is exactly 0 in the first step: student and teacher agree, "
                'or the teacher sees nothing; look at the teacher']
    if ratio == 0:
        return [f"term '{term.name}' has no gradient at {', '.join(term.taps)} in the first step: "
                'if it stays so, it teaches nothing; look at its connector and its loss']
    if term.gradient_share is not None:
        return []  # its weight sets itself
    if ratio > 100:
        return [f"term '{term.name}' drowns the student's own loss (its gradient is {ratio:.0f} "
                'times as large): lower its weight, or let it set itself by gradient_share=0.3']
    if ratio < 1e-3:
        return [f"term '{term.name}' is too small to teach (its gradient is {ratio:.1g} of the "
                "student's own): raise its weight"]
    return []
