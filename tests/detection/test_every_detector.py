"""Every detector of MMDetection as student and as teacher, by every method that takes it.

RetinaNet alone is in the ordinary run. All others are minutes, so they run by themselves, and fill
the table of the docs, all or a few by ``-k``::

    MATRIX=docs/detectors.md python -m pytest -o addopts= tests/detection/test_every_detector.py
"""

import os
import re
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from dense_zoo import gradients, narrow, trained, values
from dense_zoo import saved as saved_teacher
from helpers import runner, train_config
from matrix_table import record
from mmengine.config import Config
from zoo import CONFIGS, NEEDS_MASKS, SIZES, build, model

from mmkd.distillation.entries import built_terms
from mmkd.engine.config import validate_config
from mmkd.engine.distil import distil, family_of, methods
from mmkd.errors import UserError
from mmkd.registry import MODELS

TABLE = os.environ.get('MATRIX')
QUICK = ('RetinaNet', )
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.matrix) for name in CONFIGS]

PARTNER = 'a narrow RetinaNet'
FEATURES = ('pkd', 'cwd', 'cwd_norm', 'mgd', 'fgd', 'fitnet', 'reviewkd')
"""Between any two detectors."""
GIVES_SCORES = ('RetinaNet', 'FCOS', 'ATSS', 'GFL', 'AutoAssign', 'FSAF', 'RTMDet',
                'YOLOX')
"""The teachers of ``score_l2``."""
KINDS = dict(dense=('ld', 'bckd', 'crosskd'), fcos=('ld', 'bckd', 'crosskd'), two_stage=('dkd', ),
             detr=('setkd', 'detrdistill', 'kd_detr'), centernet=('joint', 'source'))
"""Between two detectors of one kind, and none of another."""
FIT = (dict.fromkeys(('RetinaNet', 'FCOS', 'ATSS'), ('bckd', 'crosskd'))
       | dict.fromkeys(('Faster R-CNN', 'Mask R-CNN'), KINDS['two_stage'])
       | dict.fromkeys(('DETR', 'Conditional DETR', 'DAB-DETR', 'Deformable DETR', 'DINO'),
                       KINDS['detr'])
       | dict(GFL=KINDS['dense'], CenterNet=KINDS['centernet']))
"""Which of these take a detector and another of the same config."""


def config(name):
    """A detector of the zoo, or the one that all of them meet."""
    return narrow('RetinaNet') if name == PARTNER else model(name)


@contextmanager
def cell(name, column):
    """Write into the table what ran, if all of it did."""
    done = []
    try:
        yield done
    except BaseException:
        done[:] = ['failed']
        raise
    finally:
        if TABLE:
            record(TABLE, name, column, '; '.join(done))


def saved(folder, name):
    """A teacher with random weights: its entry on the command line."""
    return saved_teacher(folder, config(name), build=build)


def training(folder, student, size=128):
    """The config of two steps of ``student`` alone."""
    cfg = train_config(folder, config(student), iters=2, batch=2)
    cfg.train_dataloader.dataset.update(size=size, masks=student in NEEDS_MASKS)
    cfg.optim_wrapper.optimizer.lr = 1e-4
    return cfg


def distilled(folder, student, teacher, names):
    """Train ``student`` for two steps, and look at what every term did."""
    size = max(SIZES.get(name, 128) for name in (student, teacher))
    cfg = training(folder / 'run', student, size)
    distil(cfg, [saved(folder, teacher)], names)
    validate_config(cfg)
    run, found = trained(cfg, gradients)
    assert set(found) == set(cfg.terms)
    for term, norms in found.items():
        backbone = sum(norm for name, norm in norms.items() if name.startswith('backbone.'))
        assert 0 < backbone < float('inf'), f'gradient of {term} in the backbone'
        history = values(run, term)
        assert len(history) == 2 and all(0 < value < float('inf') for value in history), term
    state = torch.load(folder / 'run' / 'iter_2.pth', weights_only=False)['state_dict']
    own = MODELS.build(config(student)).state_dict().keys()
    assert own <= state.keys()
    repeated = {state[key].data_ptr() for key in own}  # DDQ's head and decoder share a part
    assert all(state[key].data_ptr() in repeated for key in state.keys() - own)


def refusal(method, student, teacher, networks):
    """Why the product does not take the two: its own words, without what to do instead."""
    cfg = Config(dict(model=config(student)))
    with pytest.raises(UserError) as error:
        distil(cfg, [teacher], [method])
        for term in built_terms(cfg.terms, cfg.distill_weights):
            term.meet(networks[0], [SimpleNamespace(name='teacher', model=networks[1])])
    text = str(error.value)
    assert '\n' not in text and ': take ' in text
    cause = text.rpartition(': take ')[0].rpartition(', and ')[2]
    return re.sub(r"^(the student|teacher '\w+')( \(\w+\))? (has|is) | of the student", '', cause)


@pytest.mark.parametrize('name', ALL)
def test_as_a_student(name, tmp_path):
    with cell(name, 'learns from a RetinaNet') as done:
        distilled(tmp_path, name, PARTNER, [*FEATURES, 'score_l2'])
        done.append('features, score_l2')


@pytest.mark.matrix
@pytest.mark.parametrize('name', CONFIGS)
def test_as_a_teacher(name, tmp_path):
    with cell(name, 'teaches a RetinaNet') as done:
        scores = ['score_l2'] if name in GIVES_SCORES else []
        distilled(tmp_path, PARTNER, name, [*FEATURES, *scores])
        done.append(', '.join(('features', *scores)))
        if not scores:
            networks = [MODELS.build(config(one)) for one in (PARTNER, name)]
            cause = refusal('score_l2', PARTNER, saved(tmp_path, name), networks)
            done.append(f'not score_l2: {cause}')


@pytest.mark.matrix
@pytest.mark.parametrize('name', CONFIGS)
def test_among_its_own_kind(name, tmp_path):
    with cell(name, 'among its own kind') as done:
        fit, near = FIT.get(name, ()), KINDS[family_of(model(name))]
        if fit:
            distilled(tmp_path, name, name, fit)
            done.append(', '.join(fit))
        teacher, networks = saved(tmp_path, name), [MODELS.build(model(name))] * 2
        others = {method for kind in KINDS.values() for method in kind}.difference(fit)
        causes = {method: refusal(method, name, teacher, networks) for method in sorted(others)}
        for cause in dict.fromkeys(causes[method] for method in near if method in causes):
            found = ', '.join(method for method in near if causes.get(method) == cause)
            done.append(f'not {found}: {cause}')


def test_every_method_is_in_the_matrix():
    kinds = {method for kind in KINDS.values() for method in kind}
    of_backbones = {name for name in methods() if name.startswith('foundation')}
    assert {*FEATURES, 'score_l2', *kinds} == set(methods()) - of_backbones


@pytest.mark.parametrize('name', [name if name in QUICK else
                                  pytest.param(name, marks=pytest.mark.matrix)
                                  for name in ('RetinaNet', 'Faster R-CNN', 'DINO')])
def test_a_term_without_weight_changes_nothing(name, tmp_path):
    """Bit by bit. With 1e-30 the teacher, the dry run and the term are there all the same."""
    alone = None
    for weight in (None, 0.0, 1e-30):
        cfg = training(tmp_path / str(weight), name)
        if weight is not None:
            distil(cfg, [saved(tmp_path, PARTNER)], ['pkd'])
            cfg.distill_weights.pkd = weight
            validate_config(cfg)
        run = runner(cfg)
        run.train()
        end = run.model.state_dict()
        alone = alone or end
        assert end.keys() == alone.keys()
        assert all(torch.equal(value, alone[key]) for key, value in end.items())
        terms = run.message_hub.log_scalars.get('train/loss_distill_pkd')
        assert (terms is not None) == (weight == 1e-30)


@pytest.mark.parametrize('name', ALL)
def test_predicts(name):
    from mmdet.structures import DetDataSample
    with cell(name, 'predicts') as done:
        size = SIZES.get(name, 128)
        network = MODELS.build(model(name)).eval()
        network.init_weights()
        sample = DetDataSample(metainfo=dict(
            img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size), img_id=0,
            batch_input_shape=(size, size), scale_factor=(1.0, 1.0), border=(0, size, 0, size)))
        with torch.no_grad():
            data = network.data_preprocessor(
                dict(inputs=[torch.randint(0, 256, (3, size, size))], data_samples=[sample]),
                False)
            [found] = network.predict(data['inputs'], data['data_samples'])
        assert found.pred_instances.scores.isfinite().all()
        done.append('yes')
