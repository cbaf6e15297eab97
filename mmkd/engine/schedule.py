"""The epochs of a training and of its learning-rate schedule, which must end together."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmkd.errors import UserError

__all__ = ['resumed_mismatch', 'schedule_mismatch', 'set_epochs']

# What of a scheduler counts epochs, where it goes by them.
ONE, SEVERAL = ('begin', 'end', 'T_max', 'step_size', 'total_steps'), ('milestones', 'periods')
OF_TERM = ('warmup_epochs', 'until')


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train for ``epochs`` epochs, on the schedule of ``cfg`` stretched or compressed to them.

    That is the schedule of the learning rate, and of terms that warm up or end: a method that warms
    up over 20 of 240 epochs would spend most of 30 on it.

    Args:
        cfg: of a training by epochs; changed.
        epochs: at least 1.

    Raises:
        UserError: it trains by iterations, or a scheduler would begin where it ends.
    """
    loop = cfg.get('train_cfg') or {}
    if epochs < 1:
        raise UserError(f'--epochs is {epochs}: give 1 or more')
    if not loop.get('max_epochs'):
        raise UserError(f"--epochs was given, but config '{cfg.filename}' counts iterations: use "
                        '--cfg-options train_cfg.max_iters=N')
    planned, loop.max_epochs = loop.max_epochs, epochs
    for place, scheduler in _by_epoch(cfg):
        whole = scheduler.get('T_max') == _end(scheduler) - scheduler.get('begin', 0)
        for key in ONE:
            if scheduler.get(key):
                scheduler[key] = _scaled(scheduler[key], epochs, planned)
        for key in SEVERAL:
            if key in scheduler:
                scheduler[key] = [_scaled(value, epochs, planned) for value in scheduler[key]]
        if 'end' in scheduler and scheduler.get('begin', 0) >= scheduler['end']:
            raise UserError(f'--epochs {epochs} leaves no epoch to {scheduler.get("type")} at '
                            f'{place}: give more epochs, or take it out of the config')
        if whole and 'end' in scheduler:
            scheduler['T_max'] = scheduler['end'] - scheduler.get('begin', 0)
    for term in _terms(cfg):
        for key in OF_TERM:
            if isinstance(term.get(key), int) and term[key] > 0:  # a float is a share of the run
                term[key] = _scaled(term[key], epochs, planned)


def schedule_mismatch(cfg: Config) -> str | None:
    """Return what is to be said if the schedule ends at another epoch than the training."""
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    ends = [_end(scheduler) for _, scheduler in _by_epoch(cfg) if not _is_warm_up(scheduler)]
    last = max((end for end in ends if end), default=None)
    if not epochs or last is None or last == epochs:
        return None
    return (f'the learning-rate schedule ends at epoch {last} and training at epoch {epochs}: '
            'mmkd train --epochs changes both alike')


def resumed_mismatch(cfg: Config, checkpoint: Mapping[str, Any]) -> str | None:
    """Return what is to be said if a resumed schedule is that of another number of epochs.

    mmengine's schedulers take what they were built with from the checkpoint.
    """
    planned = checkpoint['message_hub'].get('runtime_info', {}).get('max_epochs')
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if planned is None or epochs in (None, planned) or not list(_by_epoch(cfg)):
        return None
    return (f'the learning-rate schedule stays that of the {planned} epochs it began with, and '
            f'training now ends at epoch {epochs}: for another schedule begin anew, with '
            '--cfg-options load_from=CHECKPOINT')


def _terms(cfg: Config) -> Iterator[dict[str, Any]]:
    # What is no dictionary is refused later, where the config is checked as a whole.
    if isinstance(terms := cfg.get('terms'), Mapping):
        yield from (term for term in terms.values() if isinstance(term, Mapping))


def _scaled(value: int, epochs: int, planned: int) -> int:
    return max(round(value * epochs / planned), 1)


def _by_epoch(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    schedulers = cfg.get('param_scheduler') or []
    if not isinstance(schedulers, list | tuple):
        schedulers = [schedulers]
    for i, scheduler in enumerate(schedulers):
        if scheduler.get('by_epoch', True):
            yield f'param_scheduler[{i}]', scheduler


def _end(scheduler: dict[str, Any]) -> int:
    """Return the epoch after which a scheduler changes nothing, 0 if it does not say."""
    if scheduler.get('T_max') and 'end' not in scheduler:
        return scheduler.get('begin', 0) + scheduler['T_max']
    return scheduler.get('end') or 0


def _is_warm_up(scheduler: dict[str, Any]) -> bool:
    # YOLOX ends with a constant rate, which begins late.
    return (scheduler.get('type') in ('ConstantLR', 'LinearLR') and not scheduler.get('begin')
            and scheduler.get('end_factor', 1) >= scheduler.get('start_factor', 0))
