"""What ``mmkd/mmengine_private.py`` takes for granted of mmengine, tried on mmengine itself."""

import ast
from itertools import count
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader, Dataset

import mmkd
import mmkd.api
import mmkd.commands
from mmkd import mmengine_private as private

NUMBER = count()  # the names of runs must differ
PACKAGE = Path(mmkd.__file__).parent
HERE = Path(private.__file__)


class Numbers(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return dict(inputs=torch.tensor([float(index)]))


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs: torch.Tensor, mode: str = 'loss') -> object:
        out = self.layer(inputs)
        return dict(loss=out.square().mean()) if mode == 'loss' else [out]


class Largest(BaseMetric):
    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.append(1.0)

    def compute_metrics(self, results: list) -> dict:
        return dict(largest=max(results))


class Moments(private.PreparedRunner):
    def on_logger_ready(self) -> None:
        self.moments = ['logger', *(['too early'] if self.logger is None else [])]

    def on_model_ready(self) -> None:
        self.moments.append(f'model at {self.iter}')


class Saving(private.HookOfCheckpoints):
    def save_step(self, runner: Runner, step: int, meta: dict) -> None:
        runner.moments.append(f'step {step}')
        Path(self.out_dir, self.filename_tmpl.format(step)).touch()

    def saving_best(self, runner: Runner) -> object:
        runner.moments.append('best')
        return torch.no_grad()


def runner_of(folder: Path, **options: object) -> Moments:
    options = dict(train_cfg=dict(by_epoch=True, max_epochs=2), val_cfg={},
                   optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))) | options
    return Moments(
        Line(), str(folder), train_dataloader=DataLoader(Numbers(), 2),
        val_dataloader=DataLoader(Numbers(), 2), val_evaluator=Evaluator(Largest()),
        default_hooks=dict(checkpoint=Saving(interval=1, save_best='largest', rule='greater')),
        default_scope='mmengine', experiment_name=f'private_{next(NUMBER)}', **options)


def test_a_training_is_told_from_a_test_and_takes_part_in_its_moments(tmp_path):
    runner = runner_of(tmp_path)
    assert not private.trains(runner)
    assert private.goes_on_from(runner) is None
    runner.train()
    assert private.trains(runner)
    assert private.counts_epochs(runner) and not private.counts_iterations(runner)
    assert runner.moments == ['logger', 'model at 0', 'step 1', 'best', 'step 2', 'best']


def test_a_training_by_iterations(tmp_path):
    runner = runner_of(tmp_path, train_cfg=dict(by_epoch=False, max_iters=3, val_interval=100))
    runner.train()
    assert private.counts_iterations(runner) and not private.counts_epochs(runner)


def test_a_runner_that_only_tests_is_none_that_trains(tmp_path):
    runner = runner_of(tmp_path)
    runner.hooks.clear()
    runner.val()
    assert not private.trains(runner)


@pytest.mark.parametrize('load_from, answer', [('a/epoch_1.pth', 'a/epoch_1.pth'), (None, '')])
def test_where_a_resumed_run_goes_on(tmp_path, load_from, answer):
    assert private.goes_on_from(runner_of(tmp_path, resume=True, load_from=load_from)) == answer
    assert private.goes_on_from(runner_of(tmp_path, load_from=load_from)) is None


def test_the_interval_of_validations_follows_the_time(tmp_path):
    runner = runner_of(tmp_path, train_cfg=dict(
        by_epoch=True, max_epochs=9, val_interval=4, dynamic_intervals=[(6, 1)]))
    loop = runner.build_train_loop(runner._train_loop)
    private.update_val_interval(loop)
    assert loop.val_interval == 4
    loop._epoch = 7
    private.update_val_interval(loop)
    assert loop.val_interval == 1


def test_a_scheduler_goes_on_with_a_parameter_group_that_came_later(tmp_path):
    runner = runner_of(tmp_path, param_scheduler=dict(type='ExponentialLR', gamma=0.5))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    scheduler, = private.schedulers_of(runner)
    group = dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=8.0, initial_lr=8.0)
    runner.optim_wrapper.optimizer.add_param_group(group)
    scheduler.base_values.append(8.0)
    private.insert_last_value(scheduler, 1, 8.0)
    runner.optim_wrapper.update_params(runner.model(torch.ones(1, 1))['loss'])
    scheduler.step()
    assert [g['lr'] for g in runner.optim_wrapper.param_groups] == [0.05, 4.0]
    assert scheduler.get_last_value() == [0.05, 4.0]


def test_schedulers_of_several_optimizers_come_one_by_one(tmp_path):
    runner = runner_of(tmp_path)
    runner.param_schedulers = dict(a=['one', 'two'], b=['three'])
    assert list(private.schedulers_of(runner)) == ['one', 'two', 'three']
    runner.param_schedulers = None
    assert list(private.schedulers_of(runner)) == []


def private_names_of_mmengine() -> set[str]:
    names = set()
    for file in Path(mmengine.__file__).parent.rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
    return {name for name in names if name.startswith('_') and not name.startswith('__')}


def test_no_other_file_reads_a_private_name_of_mmengine():
    names, found = private_names_of_mmengine(), []
    assert {'_train_loop', '_resume', '_load_from', '_last_value'} <= names
    for file in PACKAGE.rglob('*.py'):
        if file == HERE or '.mim' in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in names:
                owner = ast.unparse(node.value)
                if owner.endswith(('runner', 'loop', 'loader', 'scheduler', 'wrapper', 'hub')):
                    found.append(f'{file.name}: {owner}.{node.attr}')
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmengine'):
                found += [f'{file.name}: {a.name}' for a in node.names if a.name.startswith('_')]
    assert not found


def test_no_other_class_overrides_a_private_method_of_mmengine():
    waiting = [BaseLoop, BaseMetric, BaseModel, Hook, OptimWrapper, OptimWrapperDict, Runner,
               Visualizer]
    seen, found = set(), []
    while waiting:
        for one in waiting.pop().__subclasses__():
            if one not in seen:
                seen.add(one)
                waiting.append(one)
    for one in seen:
        if not one.__module__.startswith('mmkd.') or one.__module__ == private.__name__:
            continue
        for base in one.__mro__[1:]:
            if base.__module__.startswith('mmengine.'):
                found += [f'{one.__name__}.{name}' for name in vars(one)
                          if name.startswith('_') and not name.startswith('__')
                          and callable(vars(base).get(name))]
    assert len(seen) > 50
    assert not found
