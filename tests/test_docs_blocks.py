"""Every Python block of the docs runs.

A block is read by what it assigns: a `baseline` makes a *study*, which is planned; nothing but
entries of a config make a *config*, which is checked as `mmkd train` does and trains one step of a
tiny network; everything else is a *program*, which is executed. A page is read from top to bottom,
in a folder where the files lie that its blocks name, and what a program defines stays known: a loss
is used in one step, a test is called.
"""

import ast
import math
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import timm_stub
import torch
from helpers import (
    DRAWN_DETECTOR,
    centernet,
    distillation_hook,
    runner,
    save_teacher,
    train_config,
)
from mmengine.registry import DefaultScope
from torch import nn

import mmkd
from mmkd.config_files import config_path
from mmkd.detection.data import draw_dataset
from mmkd.distillation import load_checkpoint_safely, losses
from mmkd.distillation.entries import built_terms
from mmkd.engine.config import load_config, validate_config
from mmkd.engine.unlabelled import use_unlabelled
from mmkd.registry import MODELS
from mmkd.study.plan import read_study, settled, what_differs
from mmkd.teacher_cache.options import fix_views

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'tests/detection'))

from dense_zoo import narrow  # noqa: E402
from test_bare_teachers import TinyViT  # noqa: E402

ENTRIES = {'_base_', 'teachers', 'terms', 'distill_weights', 'teacher_cache', 'custom_hooks',
           'unlabelled', 'val_dataloader', 'val_cfg', 'val_evaluator'}
PAGES = {page.name: page for page in (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))
         if '```python\n' in page.read_text()}
FROM_PYTHON = 'python.md'  # what its program leaves is what other pages begin with

DRAWN = 'configs/_base_/datasets/drawn.py'


def blocks(page):
    """Yield each block and the line where it begins."""
    text = page.read_text()
    for found in re.finditer(r'^```python\n(.*?)^```', text, re.S | re.M):
        line = text.count('\n', 0, found.start()) + 2
        yield SimpleNamespace(code=found[1], line=line, where=f'{page.name}, line {line}')


def kind_of(block):
    body = ast.parse(block.code, block.where).body
    names = {target.id for statement in body if isinstance(statement, ast.Assign)
             for target in statement.targets if isinstance(target, ast.Name)}
    if not all(isinstance(statement, ast.Assign) for statement in body):
        return 'program'
    return 'study' if 'baseline' in names else 'config' if names <= ENTRIES else 'program'


def walk(page, folder, monkeypatch, step_of):
    """Run the blocks of a page; return what its programs defined."""
    known = {'__name__': 'docs'}
    for block in blocks(page):
        kind = kind_of(block)
        if kind == 'study':
            plan(block.code, folder)
        elif kind == 'config':
            take_a_step(step_of(block.code))
        else:
            before = set(known)
            execute(block, folder, known)
            use({name: known[name] for name in set(known) - before}, monkeypatch, step_of)
    return known


def execute(block, folder, known):
    # The empty lines make a traceback name the page's line.
    code = compile('\n' * (block.line - 1) + block.code, block.where, 'exec')
    try:
        exec(code, known)
    except Exception as error:
        there = ', '.join(sorted(path.name for path in folder.iterdir()))
        raise AssertionError(
            f'{block.where}: the block does not run as it stands in a folder with {there}. Write '
            'its imports into it, and let `fill` in this file make what it reads') from error


def use(defined, monkeypatch, step_of):
    """Do with what a block defined what the page says of it."""
    for name in defined.get('__all__', ()):  # the two lines of docs/contributing.md
        monkeypatch.setattr(losses, name, defined[name], raising=False)
        MODELS.register_module(module=defined[name])
    for name, value in defined.items():
        if isinstance(value, type) and issubclass(value, nn.Module) and MODELS.get(name) is value:
            take_a_step(step_of(f"terms = dict(mine=dict(tap=TAP, loss=dict(type='{name}')))\n"
                                "custom_hooks = [dict(type='DistillationHook')]\n"))
        if name.startswith('test_'):
            value()


def take_a_step(cfg):
    """Train for one iteration; every term must have had its say."""
    fix_views(cfg)
    run = runner(cfg)
    run.train()
    terms = distillation_hook(run).terms
    assert [term.name for term in terms] == list(cfg.terms)
    for term in terms:
        [loss, *_] = run.message_hub.log_scalars[f'train/loss_distill_{term.name}'].data[0]
        assert math.isfinite(loss) and (loss > 0 or term.warmup_epochs), term.name


def plan(code, folder):
    """Read a study, and every config that it would train."""
    (folder / 'study.py').write_text(code)
    study = read_study(folder / 'study.py')
    configs = {cell.name: settled(cell) for cell in study.cells}
    for name, differs in what_differs(study, configs).items():
        assert {'teachers', 'terms'} <= set(differs.split(', ')), name
        assert built_terms(configs[name].terms, configs[name].get('distill_weights'))
        [taught] = configs[name].teachers.values()
        assert taught['checkpoint'] in [teacher.checkpoint for teacher in study.teachers]
    for teacher in study.teachers:  # whose last epoch is the one that is waited for
        epochs = settled(teacher.cell).train_cfg.max_epochs
        assert Path(teacher.checkpoint).name == f'epoch_{epochs}.pth'


class Steps:
    """Turns configs of a page into one that trains a step of something tiny, by a call."""

    def __init__(self, page, folder, cifar_config):
        self.folder, self.cifar_config = folder, cifar_config
        self.ready, self.tap = {
            'README.md': (self.centernet, 'neck'), 'recipe.md': (self.centernet, 'neck'),
            'unlabelled.md': (self.centernet, 'neck'),
            'contributing.md': (self.retinanet, 'neck:*'),
            'detectors.md': (self.retinanet, 'neck:*'),
            'classification.md': (self.classifier, 'head.fc'),
            'self_and_online.md': (self.cohort, 'members.*.head.fc'),
        }.get(page, (None, None))
        self.page = page

    def __call__(self, code):
        assert self.ready, (f'{self.page} has a config or a loss, and nothing says of which '
                            'network: add the page to `Steps` in this file')
        return self.ready(code.replace('TAP', repr(self.tap)))

    def centernet(self, code):
        return self.detector(code, centernet(), [
            './centernet/centernet_r18_voc.py', './_base_/distillation/joint.py'])

    def retinanet(self, code):
        return self.detector(code, narrow('RetinaNet'), [
            str(config_path('mmdet::retinanet/retinanet_r18_fpn_1x_coco'))])

    def detector(self, code, tiny, base):
        """The block in a file, on top of ``base`` where it names none; then with a tiny student."""
        path = self.folder / 'configs/mine.py'
        path.write_text(code if '_base_' in code else f'_base_ = {base}\n{code}')
        said = load_config(path)
        validate_config(said)
        names = [name for term in said.terms.values() for name in term.get('teachers') or ()]
        teachers = said.get('teachers') or {name: {} for name in names or ('one', 'two')}
        entries = {name: self.teacher(name, entry, said, tiny) for name, entry in teachers.items()}
        more = {key: said[key] for key in ('distill_weights', 'teacher_cache', 'unlabelled')
                if key in said}
        step = train_config(self.folder / 'run', tiny, said.custom_hooks, iters=1,
                            teachers=entries, terms=said.terms, **more)
        step.train_dataloader = load_config(self.folder / DRAWN).train_dataloader
        step.train_dataloader.update(batch_size=2)
        [resize] = [one for one in step.train_dataloader.dataset.pipeline if one.type == 'Resize']
        resize.scale = (64, 64)
        use_unlabelled(step)
        return step

    def teacher(self, name, entry, said, tiny):
        """A bare network's weights lie where the entry says; a detector becomes a tiny one."""
        if isinstance(entry.get('model'), str):  # of timm; what others publish as .safetensors
            state = timm_stub.create_model(entry['model'].removeprefix('timm:'), False).state_dict()
            torch.save(state, 'timm.pth')
            return dict(entry, checkpoint='timm.pth')
        if 'model' in entry:
            state = MODELS.build(entry['model']).state_dict()
            torch.save({entry['prefix'] + key: value for key, value in state.items()},
                       entry['checkpoint'])
            return entry
        if 'config' in entry:
            assert load_config(entry['config']).classes == said.classes
        return save_teacher(self.folder, name, tiny, load_config(self.folder / DRAWN).classes)

    def classifier(self, code):
        (self.folder / 'configs/classification/methods/mine.py').write_text(code)
        network = MODELS.build(dict(type='Classifier', backbone=dict(type='resnet14'),
                                    num_classes=10))
        torch.save(network.state_dict(), 'resnet14.pth')
        return self.cifar('classification/distill', student='resnet8',
                          teacher='resnet14=resnet14.pth')

    def cohort(self, code):
        (self.folder / 'configs/online/methods/mine.py').write_text(code)
        return self.cifar('online/train', members='resnet8,resnet8')

    def cifar(self, name, **choices):
        return self.cifar_config(self.folder / f'configs/{name}.py', self.folder / 'run',
                                 method='mine', **choices)


def fill(folder):
    """Put what the pages' blocks read where they look for it."""
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    draw_dataset(folder / 'data/drawn', splits=dict(train=4, val=2, test=2), image_size=64)
    for name, width in (('teacher', 16), ('student', 8)):
        (folder / f'{name}.py').write_text(DRAWN_DETECTOR.format(root='.', width=width))
    photo = cv2.imread(str(next((folder / 'data/drawn/JPEGImages').glob('*.jpg'))))
    for photos in ('data/photos', 'photos'):
        (folder / photos).mkdir()
    for path in ('photo.jpg', 'data/photos/one.jpg', 'photos/one.jpg'):
        cv2.imwrite(str(folder / path), photo)
    clip = cv2.VideoWriter(str(folder / 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (64, 64))
    for _ in range(2):
        clip.write(photo)
    clip.release()
    (folder / 'configs/mine').mkdir()  # the detectors of docs/studies.md
    for name, depth in (('teacher', 50), ('student', 18)):
        base = config_path(f'mmdet::retinanet/retinanet_r{depth}_fpn_1x_coco')
        (folder / f'configs/mine/{name}.py').write_text(
            f"_base_ = ['{base}']\ntrain_cfg = dict(max_epochs=24)\n")


@pytest.fixture(scope='module')
def left(tmp_path_factory):
    """The folder in which docs/python.md was followed, and what is known then."""
    folder = tmp_path_factory.mktemp('docs')
    fill(folder)
    with pytest.MonkeyPatch.context() as patch, DefaultScope.overwrite_default_scope('mmkd'):
        patch.chdir(folder)
        known = walk(PAGES[FROM_PYTHON], folder, patch, None)
    shutil.copy(folder / 'work_dirs/student/best.pth', folder)
    return SimpleNamespace(folder=folder, known=known)


def test_a_block_that_fits_no_rule_says_how_to_add_it(tmp_path, monkeypatch):
    page, steps = tmp_path / 'new.md', Steps('new.md', tmp_path, None)
    page.write_text('# New\n\n```python\nopen("absent.txt")\n```\n')
    with pytest.raises(AssertionError, match=r'new.md, line 4: the block does not run .* `fill` '):
        walk(page, tmp_path, monkeypatch, steps)
    page.write_text('```python\nterms = dict()\n```\n')
    with pytest.raises(AssertionError, match='of which network: add the page to `Steps`'):
        walk(page, tmp_path, monkeypatch, steps)


def test_what_docs_python_md_leaves(left, monkeypatch):
    found = mmkd.Detector(left.folder / 'student.onnx')(cv2.imread(str(left.folder / 'photo.jpg')))
    assert [*map(len, left.known['found'])] == [*map(len, found)]
    monkeypatch.chdir(left.folder)
    metrics = mmkd.evaluate('student.onnx', config='work_dirs/student')
    assert metrics == pytest.approx(mmkd.evaluate('work_dirs/student'), abs=1e-3, nan_ok=True)
    assert set(torch.load(left.folder / 'student.pth')) == {'0.weight', '0.bias', '4.weight',
                                                            '4.bias'}


@pytest.mark.parametrize('page', sorted(set(PAGES) - {FROM_PYTHON}))
def test_the_blocks_of_a_page_run(page, left, cifar_config, monkeypatch):
    monkeypatch.chdir(left.folder)
    monkeypatch.setitem(sys.modules, 'my_package', SimpleNamespace(ViT=lambda depth: TinyViT()))
    monkeypatch.setitem(sys.modules, 'timm', timm_stub)
    monkeypatch.setattr(MODELS, '_module_dict', dict(MODELS.module_dict))
    monkeypatch.setattr('mmkd.distillation.step._FACTS', dict(mmkd.distillation.step._FACTS))
    walk(PAGES[page], left.folder, monkeypatch, Steps(page, left.folder, cifar_config))
    if page == 'reliability.md':  # which says that mmkd reads them now
        assert 'weights_sha256' not in load_checkpoint_safely('changed.pth')['meta']
        mmkd.Detector('changed.onnx')
