"""A study file: what it may say, and that unequal budgets are refused."""

import sys
from pathlib import Path

import pytest

from mmkd.errors import UserError
from mmkd.study.plan import read_study, settled, what_differs

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'engine'))

from tiny_run import write_config  # noqa: E402

STUDY = """
baseline = dict(config='{config}')
variants = dict({variants})
metric = 'tiny/mean'
threshold = 1.0
seeds = [0, 1]
"""


def study_file(folder, variants, more=''):
    """A study of the tiny run whose variants are written as keyword arguments of ``dict``."""
    config = write_config(folder)
    path = folder / 'mine.py'
    path.write_text(STUDY.format(config=config, variants=variants.format(config=config)) + more)
    return path


def differences(study):
    return what_differs(study, {cell.name: settled(cell) for cell in study.cells})


def test_what_it_says(tmp_path):
    study = read_study(study_file(
        tmp_path, "two_teachers=dict(config='{config}', teacher='a.py=a.pth', method='pkd', "
                  "options={{'a.b': dict(c=1, d=dict(e=[2]))}})"))
    baseline, variant = study.cells
    assert (study.name, study.seeds, study.split, study.scale) == ('mine', (0, 1), 'test', 1.0)
    assert (baseline.name, baseline.title) == ('baseline', 'baseline')
    assert variant.options == {'a.b.c': 1, 'a.b.d.e': [2]}
    assert (variant.title, variant.teacher, variant.method) == ('two teachers', ('a.py=a.pth', ),
                                                                'pkd')


@pytest.mark.parametrize('more, message', [
    ('treshold = 2', r"says 'treshold'.*Did you mean 'threshold'"),
    ("metric = ''", 'has no `metric`'), ("split = 'train'", "is 'train': give 'test' or 'val'"),
    ("picture = 'b'", "`picture` of study .* is 'b', which is none of a"),
    ("may_differ = ['epoch']", r"`may_differ` of 'mine' says 'epoch'.*Did you mean 'epochs'"),
    ("variants = dict(a=dict(config='x.py', may_differ=['vews']))", r"of 'a' says 'vews'"),
    ("variants = dict(a=dict(configs='x.py'))", r"'a' says 'configs'.*Did you mean 'config'"),
    ("variants = dict(a=dict(title='x'))", "'a' has no `config`"),
    ("baseline = 'x.py'", "`baseline` of study .* is 'x.py'"), ("seeds = 3", '`seeds` of .* is 3'),
    ("variants = dict(a='x.py')", r"'a' is 'x.py': write dict\(config="),
    ("variants = dict(a=dict(config=3))", "`config` of 'a' is 3: see the examples in studies/"),
    ("threshold = float('nan')", '`threshold` of study .* is nan'),
    ("may_differ = [1]", r"says '1', which is none of"),
    ('metric = ', 'is no valid Python in line'),
    ("teachers = dict(t=dict(config='x.py'))", "teacher 't' .* must have `config` and `check"),
    ("teachers = dict(t=dict(config='x.py', methd='kd'))", "teacher 't' .* says 'methd'")])
def test_what_it_refuses(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        read_study(study_file(tmp_path, "a=dict(config='{config}')", more))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing.py' does not exist"):
        read_study(tmp_path / 'nothing.py')


@pytest.mark.parametrize('option, budget, message', [
    ("'train_cfg.max_epochs': 8", 'epochs', "'train_cfg.max_epochs' is 8 .*baseline 4"),
    ("'train_dataloader.batch_size': 2", 'batch', "batch_size' is 2 and that of the baseline 4"),
    ("'train_dataloader.dataset.size': 9", 'data', "dataset.size' is 9"),
    ("'test_dataloader.batch_size': 1", 'data', "test_dataloader.batch_size' is 1"),
    ("'optim_wrapper.optimizer.lr': 0.1", 'optimizer', "optimizer.lr' is 0.1"),
    ("'param_scheduler': []", 'schedule', "'param_scheduler' is"),
    ("'model.width': 16", 'network', "'model.width' is 16 and that of the baseline null"),
    ("'model.init_cfg': dict(checkpoint='x')", 'initial weights',
     "'initial weights.model.init_cfg' is .*x.* null"),
    ("'amp': 'bf16'", 'precision', "'amp' is \"bf16\"")])
def test_another_budget_is_refused_unless_the_study_says_so(tmp_path, option, budget, message):
    variant = "a=dict(config='{config}', options={{" + option + '}})'
    with pytest.raises(UserError, match=rf"variant 'a' has another budget.*{message}.*"
                                        rf"may_differ=\['{budget}'\]"):
        differences(read_study(study_file(tmp_path, variant)))
    of_the_variant = variant.replace('options=', f"may_differ=['{budget}'], options=")
    for path in (study_file(tmp_path, variant, f"may_differ = ['{budget}']"),
                 study_file(tmp_path, of_the_variant)):
        assert differences(read_study(path)) == {'a': budget}


def test_what_one_variant_may_is_refused_to_the_others(tmp_path):
    other = ", b=dict(config='{config}', options={{'amp': 'bf16'}})"
    with pytest.raises(UserError, match=r"variant 'b' has another budget.* in the variant"):
        differences(read_study(study_file(
            tmp_path, "a=dict(config='{config}', may_differ=['precision'], "
                      "options={{'amp': 'bf16'}})" + other)))


CLASSIFIERS = """
ALONE = dict(config='classifier', data='cifar10', student='resnet8', data_root='elsewhere')
baseline = ALONE
variants = dict({variants})
teachers = dict(big=dict(config='classifier', data='cifar10', student='resnet14', epochs=24,
                         options={{'train_dataloader.dataset.max_samples': 99}},
                         checkpoint='b/c.pth'))
metric = 'accuracy/top1'
threshold = 1.0
"""


@pytest.fixture
def classifiers(tmp_path, monkeypatch):
    """Read a study of classifiers with some variants."""
    monkeypatch.chdir(tmp_path)

    def read(variants):
        (tmp_path / 'mine.py').write_text(CLASSIFIERS.format(variants=variants))
        return read_study(tmp_path / 'mine.py')
    return read


def test_a_cell_chooses_what_a_config_leaves_open(classifiers):
    study = classifiers("taught=dict(ALONE, teacher='resnet14=a.pth', method='dkd')")
    [baseline, variant] = (settled(cell) for cell in study.cells)
    assert what_differs(study, dict(baseline=baseline, taught=variant)) == {
        'taught': 'teachers, terms, custom_hooks'}
    assert baseline.model.backbone.type == 'resnet8' and not baseline.teachers
    assert variant.teachers.resnet14.checkpoint == 'a.pth'
    assert variant.train_dataloader.dataset.data_root == 'elsewhere'
    words = '--teacher resnet14=a.pth --data cifar10 --method dkd --student resnet8 --data-root'
    assert study.cells[1].choices == [*words.split(), 'elsewhere']
    [teacher] = study.teachers
    assert teacher.cell.choices == ['--data', 'cifar10', '--student', 'resnet14']
    trained = settled(teacher.cell)
    assert trained.train_cfg.max_epochs == 24
    assert trained.param_scheduler[0].milestones == [15, 18, 21]  # of 240: 150, 180, 210
    assert trained.train_dataloader.dataset.max_samples == 99


def test_the_weight_of_the_cross_entropy_is_no_budget_and_views_are(classifiers):
    variants = ("kd=dict(ALONE, teacher='resnet14=a.pth', method='kd'), views=dict(ALONE, "
                "options={'model.data_preprocessor.views': 2}%s)")
    assert differences(classifiers(variants % ", may_differ=['views']")) == {
        'kd': 'teachers, terms, model.ce_weight, custom_hooks', 'views': 'views'}
    with pytest.raises(UserError, match=r"'views' has .*views' is 2 .*baseline null"):
        differences(classifiers(variants % ''))


def test_only_what_is_taught_may_differ(tmp_path):
    found = differences(read_study(study_file(
        tmp_path, "a=dict(config='{config}', options={{'distill_weights': dict(x=1.0)}})")))
    assert found == {'a': 'distill_weights'}


@pytest.mark.parametrize('path', sorted((ROOT / 'studies').glob('*.py')),
                         ids=lambda path: path.stem)
def test_the_studies_compare_equal_budgets(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study(path)
    configs = {cell.name: settled(cell) for cell in study.cells}
    what_differs(study, configs)
    trained = {teacher.checkpoint: settled(teacher.cell) for teacher in study.teachers}
    for checkpoint, cfg in trained.items():
        assert Path(checkpoint).name == f'epoch_{cfg.train_cfg.max_epochs}.pth'
    for cfg in configs.values():
        for entry in cfg.get('teachers', {}).values():
            if 'config' in entry:
                assert Path(trained[entry.checkpoint].filename).samefile(entry.config)
            elif 'model' in entry:
                teacher = trained[entry.checkpoint].model
                assert (entry.model.backbone, entry.model.num_classes) == (
                    teacher.backbone, teacher.num_classes)


@pytest.mark.parametrize(('study', 'family'), [
    ('offline', 'classification'), ('self', 'selfdistill'), ('cohorts', 'online')])
def test_every_method_is_in_a_study(study, family):
    methods = {path.stem for path in (ROOT / 'configs' / family / 'methods').glob('*.py')}
    methods -= {'foundation'}  # from teachers that no table has
    for name in (f'tiny_imagenet_{study}', f'cifar10_smoke_{study}'.removesuffix('_offline')):
        cells = read_study(ROOT / f'studies/{name}.py').cells
        assert {cell.name for cell in cells[1:]} == methods - {'ce'}
        assert {cell.method for cell in cells[1:]} == methods - {'ce'}


def test_a_study_is_scaled_by_one_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    cells = {cell.name: cell for cell in read_study('studies/tiny_imagenet_offline.py').cells}
    dkd, ab = (settled(cells[name]) for name in ('dkd', 'ab'))
    assert dkd.train_cfg.max_epochs == 30
    assert dkd.param_scheduler[0].milestones == [19, 22, 26]  # 18.75, 22.5 and 26.25
    assert dkd.terms.dkd.warmup_epochs == 2 and ab.terms.ab.until == 4
