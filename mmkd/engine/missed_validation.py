"""Validate, in a resumed run, what a killed one had no time to validate."""

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmkd.engine.checkpoint_hook import resumed_from
from mmkd.engine.results import ResultsHook
from mmkd.mmengine_private import schedulers_of, update_val_interval
from mmkd.registry import HOOKS

__all__ = ['MissedValidationHook']


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Validates the resumed checkpoint first, if a validation was due and is not in results.csv.

    A checkpoint is saved before its epoch is validated, and mmengine goes on with the next epoch:
    of a run that was killed in between the validation would be lost, and ``best.pth`` could be
    another epoch's. A learning rate that follows the validations needs even those that are in
    results.csv once more. Looks at runs alone that go on in the folder of their checkpoint.
    """

    priority = 'LOWEST'  # every other hook is ready

    def before_train(self, runner: Runner) -> None:
        """Validate, if need be."""
        # What is on the disk of the main process decides for all of them.
        missed = [is_main_process() and _is_missed(runner)]
        broadcast_object_list(missed)
        if missed[0]:
            runner.logger.info('The validation behind the checkpoint comes first')
            runner.val_loop.run()


def _is_missed(runner: Runner) -> bool:
    results = [hook for hook in runner.hooks if isinstance(hook, ResultsHook)]
    return (bool(results) and runner.val_loop is not None
            and resumed_from(runner, runner.work_dir) and _is_due(runner)
            and (_rate_follows(runner) or not results[0].is_validated(runner.iter)))


def _rate_follows(runner: Runner) -> bool:
    return any(isinstance(one, ReduceOnPlateauParamScheduler) for one in schedulers_of(runner))


def _is_due(runner: Runner) -> bool:
    """Ask what mmengine's loops ask before they validate."""
    loop = runner.train_loop
    update_val_interval(loop)
    done, last = ((loop.epoch, loop.max_epochs) if isinstance(loop, EpochBasedTrainLoop)
                  else (loop.iter, loop.max_iters))
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)
