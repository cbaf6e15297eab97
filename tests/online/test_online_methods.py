"""Every method of configs/online/methods trains by the one config, on a tiny archive."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from states import assert_equal

import mmkd  # noqa: F401
from mmkd.distillation import load_checkpoint_safely
from mmkd.engine import launch
from mmkd.engine.config import load_config
from mmkd.errors import UserError
from mmkd.registry import HOOKS, MODELS

ROOT = Path(__file__).parents[2]
ONLINE, ALONE = 'configs/online/train.py', 'configs/classification/distill.py'
METHODS = sorted(path.stem for path in (ROOT / 'configs/online/methods').glob('*.py'))
MEMBERS = 'resnet8,wrn_16_1,resnet8'
NAMES = ('resnet8_1', 'wrn_16_1_2', 'resnet8_3')


@HOOKS.register_module()
class StopInTheSecondEpoch(Hook):
    """Ends a run that has one checkpoint."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == 1:
            raise InterruptedError


@pytest.fixture
def config(cifar_config, tmp_path):
    """``config(path, folder, options, method=...)``."""
    def read(path, folder='run', options=None, **choices):
        cfg = cifar_config(path, tmp_path / folder, options, **choices)
        if choices.get('method') == 'l_mcl':
            cfg.custom_hooks[-1].interval = 2  # and not 50: there are two steps in an epoch
        return cfg
    return read


def _states(tmp_path, epoch, *folders):
    return [load_checkpoint_safely(tmp_path / folder / f'epoch_{epoch}.pth') for folder in folders]


@pytest.mark.parametrize('method', METHODS)
def test_every_method_leaves_plain_members(method, config, tmp_path):
    """Each member's file is what the cohort's says, and a classifier's config evaluates it."""
    launch.train(config(ONLINE, method=method, members=MEMBERS))
    [saved] = _states(tmp_path, 1, 'run')
    assert all(value.isfinite().all() for value in saved['state_dict'].values())
    reported = json.loads((tmp_path / 'run/accuracy.json').read_text())['1']
    cohort = launch.test(config(ONLINE, method=method, members=MEMBERS),
                         tmp_path / 'run/epoch_1.pth')
    tops = [reported[f'accuracy/{name}/top1'] for name in NAMES]
    assert reported['accuracy/top1'] == pytest.approx(sum(tops) / 3)
    means = [f'{name}.mean' for name in NAMES] if method == 'pcl' else []
    assert {key for key in reported if 'top1' in key} == {
        'accuracy/top1', 'accuracy/ensemble/top1',
        *(f'accuracy/{name}/top1' for name in (*NAMES, *means))}
    assert cohort == pytest.approx({key: value for key, value in reported.items()
                                    if '.mean/' not in key})
    for name in NAMES:
        plain = MODELS.build(config(ALONE, method='ce', student=name[:-2]).model)
        member = load_checkpoint_safely(tmp_path / f'run/{name}.pth')
        assert member['state_dict'].keys() == plain.state_dict().keys()
        assert_equal(member['state_dict'], {
            key: saved['state_dict'][f'members.{name}.{key}'] for key in plain.state_dict()})
    for name in (*NAMES, *means) if method in ('dml', 'pcl') else ():
        alone = launch.test(config(ALONE, 'alone', student=name.removesuffix('.mean')[:-2]),
                            tmp_path / f'run/{name}.pth')
        for key, value in alone.items():
            assert value == pytest.approx(reported[key.replace('/', f'/{name}/')])
    for name in means:
        average = load_checkpoint_safely(tmp_path / f'run/{name}.pth')['state_dict']
        member = load_checkpoint_safely(tmp_path / f'run/{name[:-5]}.pth')['state_dict']
        assert_equal(average, {
            key: saved['mean_teachers']['mean'][f'module.members.{name[:-5]}.{key}']
            for key in member})
        assert not torch.equal(average['head.fc.weight'], member['head.fc.weight'])


def test_without_a_method_members_train_as_classifiers_do(config, tmp_path):
    """The same weights to begin with, batches and crops: each ends as it does by itself."""
    recipe = config(ONLINE, method='ce', members='resnet8,wrn_16_1')
    cohort = MODELS.build(recipe.model)
    torch.save(cohort.state_dict(), tmp_path / 'cohort.pth')
    recipe.load_from = str(tmp_path / 'cohort.pth')
    launch.train(recipe)
    for name, member in cohort.members.items():
        torch.save(member.state_dict(), tmp_path / 'start.pth')
        cfg = config(ALONE, name, student=name[:-2])
        cfg.optim_wrapper, cfg.param_scheduler = recipe.optim_wrapper, recipe.param_scheduler
        cfg.load_from = str(tmp_path / 'start.pth')
        launch.train(cfg)
        [alone] = _states(tmp_path, 1, name)
        ours = load_checkpoint_safely(tmp_path / f'run/{name}.pth')['state_dict']
        for key, value in alone['state_dict'].items():
            torch.testing.assert_close(ours[key], value, msg=key)
        assert not torch.equal(ours['head.fc.weight'], member.head.fc.weight)


def test_gradient_accumulation_is_the_mean_of_two_batches(config, tmp_path):
    """At rate 0 and momentum 1 the momentum is the sum of all gradients of the epoch."""
    def momentum(folder, counts):
        cfg = config(ONLINE, folder, method='dml', members='resnet8,resnet8',
                     options={'optim_wrapper.accumulative_counts': counts})
        cfg.optim_wrapper.optimizer.update(lr=0.0, momentum=1.0, weight_decay=0.0)
        launch.train(cfg)
        [saved] = _states(tmp_path, 1, folder)
        return [state['momentum_buffer'] for state in saved['optimizer']['state'].values()]

    two_updates, one_update = momentum('two', 1), momentum('one', 2)
    assert len(two_updates) == len(one_update) > 0
    for two, one in zip(two_updates, one_update, strict=True):
        torch.testing.assert_close(one, two / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('method', ['dml', 'mcl', 'pcl'])  # l_mcl: test_l_mcl.py
def test_a_stopped_run_ends_as_an_undisturbed_one(method, config, tmp_path):
    """Members, auxiliary networks, mean teachers and the optimizer are all in the checkpoint."""
    def run(folder, resume=None, stops=False):
        cfg = config(ONLINE, folder, method=method, members='resnet8,resnet14',
                     options={'train_cfg.max_epochs': 3})
        if stops:
            cfg.custom_hooks.append(dict(type='StopInTheSecondEpoch'))
        launch.train(cfg, resume)

    run('whole')
    with pytest.raises(InterruptedError):
        run('part', stops=True)
    run('part', 'auto')
    whole, part = _states(tmp_path, 3, 'whole', 'part')
    for key in ('state_dict', 'distillation', 'mean_teachers'):
        assert_equal(whole.get(key, {}), part.get(key, {}))


@pytest.mark.parametrize(('choices', 'message'), [
    (dict(method='dml', members='resnet8'),
     r'^a cohort has at least two members, and this one has resnet8_1: name another'),
    (dict(method='mcl', members='resnet8,resnet9'),
     r"^unknown type 'resnet9' at model.members.resnet9_2.backbone. Did you mean 'resnet8'\?$"),
    (dict(method='dmll', members='resnet8,resnet8'), r'methods/dmll'),
    (dict(method='dml', members='resnet8,resnet8', options={
        'terms.dml.tap': ['members.resnet8_1.head.fc', 'members.resnet8_2.haed.fc']}),
     r"^tap 'members.resnet8_2.haed.fc' does not exist in Cohort. Did you mean 'members.resnet8_2."
     r"head.fc'\?"),
    (dict(method='mcl', members='resnet8,resnet8x4', options={'terms.mcl.connector': None}),
     r"^term 'mcl': embeddings of shape \(8, 64\) and \(8, 256\) cannot be "),
])
def test_a_cohort_that_cannot_run(choices, message, config):
    with pytest.raises(UserError, match=message):
        launch.train(config(ONLINE, **choices))


def test_batches_without_a_positive_pair_train_on(config, tmp_path):
    """Of ten batches of two images from three classes, most hold no two of one class."""
    launch.train(config(ONLINE, method='mcl', members='resnet8,resnet8',
                        options={'train_dataloader.batch_size': 2}))
    [saved] = _states(tmp_path, 1, 'run')
    assert saved['meta']['iter'] == 10
    for states in (saved['state_dict'], saved['distillation']['mcl']['student']):
        assert all(value.isfinite().all() for value in states.values())


# From the defaults of the authors' main_*.py and their scripts.
@pytest.mark.parametrize(('method', 'data', 'published'), [
    ('mcl', 'cifar100', dict(temperature=0.1, vcl=0.1, icl=0.1, soft_vcl=1.0, soft_icl=1.0)),
    ('mcl', 'imagenet', dict(temperature=0.07, vcl=0.1, icl=0.1, soft_vcl=1.0, soft_icl=1.0)),
    ('l_mcl', 'cifar100', dict(temperature=0.1, vcl=0.1, icl=0.1, interval=50)),
    ('l_mcl', 'imagenet', dict(
        type='LMCLMemoryLoss', temperature=0.07, vcl=0.01, icl=0.01, num_negatives=8192,
        num_positives=1, momentum=0.5, interval=500)),
])
def test_contrastive_methods_have_the_published_hyper_parameters(method, data, published):
    cfg = load_config(ROOT / ONLINE, arguments=dict(data=data, method=method,
                                                    members='resnet8,resnet8'))
    found = dict(cfg.terms[method].loss, interval=cfg.custom_hooks[-1].get('interval'))
    assert {name: found[name] for name in published} == published
    assert found['kd_temperature'] == 3.0


@pytest.mark.parametrize('folder', ['selfdistill', 'online'])
def test_the_tables_of_the_document_are_those_of_the_configs(folder):
    """A row for every method, with the loss and the weight of its file."""
    document = (ROOT / 'docs/self_and_online.md').read_text()
    [table] = [part for part in document.split('\n## ') if f'`configs/{folder}`\n' in part]
    rows = {row.split('`')[1]: row for row in table.splitlines() if row.startswith('| `')
            and not row.startswith('| `METHOD`')}
    files = {path.stem: path for path in (ROOT / f'configs/{folder}/methods').glob('*.py')}
    assert rows.keys() == files.keys() - {'ce'}
    for method, row in rows.items():
        [(name, term)] = load_config(files[method]).terms.items()
        assert name == method
        loss, weight = row.split(' | ')[1], row.split(' | ')[3]
        assert loss.startswith(f'`{term.loss.type}`')
        assert weight.startswith('as `mcl`') or float(
            weight.partition(';')[0]) == pytest.approx(term.weight)
