"""Images without labels in a run: losses by hand, their order, what cannot be learnt there."""

import copy
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from helpers import distillation, distillation_hook, runner, train_config
from mmengine.hooks import Hook
from three_layers import ThreeLayers

import mmkd.detection  # noqa: F401
from mmkd.distillation import load_checkpoint_safely, unlabelled
from mmkd.distillation.entries import built_terms
from mmkd.distillation.unlabelled import check_without_labels
from mmkd.errors import UserError
from mmkd.registry import MODELS

PIPELINE = [dict(type='LoadImage'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]


class _Watch(Hook):
    """The weights at the start, and what each iteration logs."""

    def __init__(self):
        self.start, self.logged = None, []

    def before_train(self, runner):
        self.start = copy.deepcopy(runner.model.state_dict())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.logged.append({name: torch.as_tensor(value).item() for name, value in outputs.items()})


@pytest.fixture
def photos(tmp_path):
    """Six images of noise, in two folders."""
    for i in range(6):
        (tmp_path / f'photos/{i % 2}').mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'photos/{i % 2}/{i}.png'), noise)
    return tmp_path / 'photos'


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(1)
    torch.save(dict(state_dict=ThreeLayers().state_dict()), tmp_path / 'teacher.pth')
    return dict(model=dict(type='ThreeLayers'), checkpoint=str(tmp_path / 'teacher.pth'))


HINT = dict(tap='last', loss=dict(type='MeanSquare'), weight=3.0)


def _run(work_dir, photos, teacher, iters=1, ratio=1.0, weight=1.0, only=False, terms=None,
         model='ThreeLayers', **options):
    dataset = dict(type='UnlabelledImages', data_root=str(photos), pipeline=PIPELINE)
    hooks = distillation(dict(t=teacher), terms or dict(hint=HINT), check_teachers=False,
                         unlabelled=dict(dataset=dataset, ratio=ratio, weight=weight, only=only))
    cfg = train_config(work_dir, dict(type=model), hooks, iters, **options)
    if only:
        cfg.train_dataloader.dataset = dataset
    run = runner(cfg)
    run.register_hook(_Watch())
    return run


def _watch(run):
    return next(hook for hook in run.hooks if isinstance(hook, _Watch))


def _networks(run, teacher):
    """The student as it began and the teacher, outside of the run."""
    student, other = ThreeLayers(), ThreeLayers()
    student.load_state_dict(_watch(run).start)
    other.load_state_dict(torch.load(teacher['checkpoint'])['state_dict'])
    return student, other.eval()


def test_the_losses_and_the_step_of_a_mixed_batch_by_hand(tmp_path, photos, teacher):
    run = _run(tmp_path, photos, teacher, ratio=1.5, weight=0.5)
    run.train()
    modes = [(mode, training, len(inputs)) for mode, training, inputs in run.model.passes]
    assert modes == [('loss', True, 2), ('tensor', True, 2),  # the dry run
                     ('loss', True, 4), ('tensor', True, 6)]
    labelled, unlabelled = (inputs for _, _, inputs in run.model.passes[2:])
    student, other = _networks(run, teacher)
    out, out_unlabelled = student(labelled), student(unlabelled)
    own = out.square().mean()
    hint = 3 * (out - other(labelled).detach()).square().mean()
    more = 0.5 * 3 * (out_unlabelled - other(unlabelled).detach()).square().mean()
    [logged] = _watch(run).logged
    assert logged == pytest.approx(dict(
        loss_own=own.item(), loss_distill_hint=hint.item(),
        loss_distill_hint_unlabelled=more.item(), loss=(own + hint + more).item()), rel=1e-5)
    (own + hint + more).backward()
    for mine, theirs in zip(student.parameters(), run.model.parameters(), strict=True):
        torch.testing.assert_close(theirs.detach(), mine.detach() - 0.01 * mine.grad)
    for name, buffer in student.named_buffers():  # batch norms have seen both batches
        torch.testing.assert_close(dict(run.model.named_buffers())[name], buffer, msg=name)


def _seen(run, photos):
    """Numbers of the images without labels that the run saw, which may be flipped."""
    known = {}
    for path in photos.rglob('*.png'):
        image = cv2.imread(str(path))
        if image is not None:
            pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
            known[int(path.stem)] = (pixels - 120) / 60
    return [next(number for number, pixels in known.items()
                 if min((pixels - one).abs().max(), (pixels.flip(-1) - one).abs().max()) < 1e-5)
            for mode, _, inputs in run.model.passes[2:] if mode == 'tensor' for one in inputs]


def test_every_pass_over_the_folder_has_each_image_once_in_another_order(tmp_path, photos, teacher):
    run = _run(tmp_path, photos, teacher, iters=6, ratio=0.5)
    run.train()
    seen = _seen(run, photos)
    assert len(seen) == 12
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]
    labelled = [inputs for mode, _, inputs in run.model.passes[2:] if mode == 'loss']
    alone = _run(tmp_path / 'other', photos, teacher, iters=6, ratio=2)
    alone.train()
    others = [inputs for mode, _, inputs in alone.model.passes[2:] if mode == 'loss']
    assert all(map(torch.equal, labelled, others)), 'the labelled images are as without'


def test_two_processes_see_together_what_one_sees(monkeypatch):
    class Five(list):
        seed = 3

        def number(self, image, turn):
            return turn, image

    def first(batch_size, rank, processes, iteration=0):
        monkeypatch.setattr(unlabelled, 'get_dist_info', lambda: (rank, processes))
        return list(islice(unlabelled._Places(Five('abcde'), batch_size, iteration), 4 - iteration))

    one, two = first(4, 0, 1), [first(2, rank, 2) for rank in (0, 1)]
    assert one == [a + b for a, b in zip(*two, strict=True)]
    assert first(2, 1, 2, iteration=3) == two[1][3:]
    places = [place for batch in one for place in batch]
    assert sorted(places[5:10]) == [(1, image) for image in range(5)]


def test_resumed_with_workers_is_undisturbed(tmp_path, photos, teacher):
    def run(name, iters):
        one = _run(tmp_path / name, photos, teacher, iters, ratio=1.25)
        one.cfg.train_dataloader.num_workers = one._train_dataloader['num_workers'] = 1
        return one

    whole = run('whole', 4)
    whole.train()
    run('parts', 2).train()
    rest = run('parts', 4)
    rest._load_from, rest._resume = str(tmp_path / 'parts/iter_2.pth'), True
    rest.train()
    assert _watch(rest).logged == _watch(whole).logged[2:]
    states = [load_checkpoint_safely(str(tmp_path / name / 'iter_4.pth'))['state_dict']
              for name in ('whole', 'parts')]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_teachers_alone_train_without_any_label(tmp_path, photos, teacher):
    run = _run(tmp_path, photos, teacher, iters=12, only=True)
    run.train()
    assert all(mode == 'tensor' for mode, _, _ in run.model.passes)
    logged = _watch(run).logged
    assert all(set(one) == {'loss', 'loss_distill_hint'} for one in logged)
    student, other = _networks(run, teacher)
    batch = run.model.passes[4 - 2][2]
    by_hand = 3 * (student(batch) - other(batch)).square().mean().item()
    assert logged[0]['loss'] == pytest.approx(by_hand, rel=1e-5)
    assert np.mean([one['loss'] for one in logged[-3:]]) < 0.7 * logged[0]['loss']


def test_a_damaged_image_is_named_once_and_counted(tmp_path, photos, teacher):
    broken = photos / '1/1.png'
    broken.write_bytes(broken.read_bytes()[:-100])
    run = _run(tmp_path, photos, teacher, iters=4)
    said = []
    run.logger.handle = lambda record: said.append(record.getMessage())
    run.train()
    seen = _seen(run, photos)
    assert 1 not in seen and set(seen) == {0, 2, 3, 4, 5}
    named = [text for text in said if '1.png' in text]
    assert len(named) == 2
    assert 'is cut off' in named[0] and 'another image without labels takes its place' in named[0]
    assert named[1].startswith('1 images without labels could not be read and were skipped')


def test_a_folder_of_damaged_images_is_one_error(tmp_path, photos, teacher):
    for path in photos.rglob('*.png'):
        path.write_bytes(path.read_bytes()[:-100])
    for only in (False, True):
        with pytest.raises(UserError, match=r'none of the 6 images in .* can be read'):
            _run(tmp_path, photos, teacher, only=only).train()


def test_no_second_batch_once_all_terms_have_ended(tmp_path, photos, teacher):
    run = _run(tmp_path, photos, teacher, iters=4, terms=dict(hint=dict(HINT, until=0.5)))
    run.train()
    assert [mode for mode, _, _ in run.model.passes[2:]] == ['loss', 'tensor'] * 2 + ['loss'] * 2
    logged = _watch(run).logged
    assert [one['loss_distill_hint'] > 0 for one in logged] == [True, True, False, False]
    assert 'loss_distill_hint_unlabelled' not in logged[-1]


def test_a_weight_that_sets_itself_holds_for_both(tmp_path, photos, teacher):
    run = _run(tmp_path, photos, teacher, weight=2.0,
               terms=dict(hint=dict(HINT, weight=1.0, gradient_share=0.3)))
    run.train()
    weight = distillation_hook(run).distillation.weight_of('hint')
    batch = run.model.passes[-1][2]
    student, other = _networks(run, teacher)
    by_hand = 2 * weight * (student(batch) - other(batch)).square().mean().item()
    assert _watch(run).logged[0]['loss_distill_hint_unlabelled'] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(('term', 'sentence'), [
    (dict(tap='neck:*', loss=dict(type='FGDLoss')), r"term 'x' \(FGDLoss\) needs boxes, and"),
    (dict(type='DenseTerm', loss=dict(type='LDLoss')), 'needs assignment and boxes, and images'),
    (dict(type='ProposalTerm', loss=dict(type='DKDLoss')), 'needs labels, and images without'),
    (dict(type='SelfTerm', tap=['a', 'b'], loss=dict(type='KDCLLoss')), 'needs labels, and')])
def test_a_term_that_needs_labels_is_refused_by_name(term, sentence):
    with pytest.raises(UserError, match=sentence):
        check_without_labels(built_terms(dict(x=term), None), only=False)


@pytest.mark.parametrize(('term', 'sentence'), [
    (dict(HINT, gradient_share=0.3), "'x' has a gradient_share, which is measured against the st"),
    (dict(HINT, until=0.5), 'all terms end before the run does')])
def test_what_a_student_without_losses_of_its_own_needs(term, sentence):
    check_without_labels(built_terms(dict(x=term), None), only=False)
    with pytest.raises(UserError, match=sentence):
        check_without_labels(built_terms(dict(x=term), None), only=True)


@MODELS.register_module()
class _AlwaysLoses(ThreeLayers):
    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'tensor' and self.training:
            raise TypeError('the head got an argument that only losses take')
        return super().forward(inputs, data_samples, mode)


@pytest.mark.parametrize('only', [False, True])
def test_a_student_that_does_not_run_without_its_losses(tmp_path, photos, teacher, only):
    run = _run(tmp_path, photos, teacher, only=only, model='_AlwaysLoses')
    with pytest.raises(UserError, match=r'a _AlwaysLoses cannot be trained on .* only losses take'):
        run.train()


def test_a_run_that_was_not_prepared_says_how(tmp_path, teacher):
    hooks = distillation(dict(t=teacher), dict(hint=HINT))
    cfg = train_config(tmp_path, dict(type='ThreeLayers'), hooks,
                       unlabelled=dict(data_root='photos'))
    with pytest.raises(UserError, match='start the run by mmkd train, or call'):
        runner(cfg).train()
