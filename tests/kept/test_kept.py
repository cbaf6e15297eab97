"""The first losses of three recipes, and the checkpoints of earlier releases."""

import pytest

from kept import recipes
from mmkd.checkpoints import load_checkpoint_safely

RELEASES = sorted(path for path in recipes.HERE.iterdir() if (path / 'metrics.json').is_file())


def test_the_first_losses_are_those_that_were_kept(tmp_path):
    found = recipes.read(recipes.written(recipes.first_losses(tmp_path)))
    kept = recipes.read(recipes.LOSSES.read_text())
    assert len(kept) == 3 * recipes.STEPS
    different = [f'{recipe}, step {step}: {found.get((recipe, step))} and not {row}'
                 for (recipe, step), row in kept.items()
                 if found.get((recipe, step)) != pytest.approx(row, rel=1e-3, abs=1e-7)]
    assert found.keys() == kept.keys() and not different, (
        f'{different[0]}. The numerics of a recipe changed. If that was not meant, it is a fault. '
        'If it was, tell it in CHANGELOG.md, since results of this release and the last are no '
        'longer comparable, and write the losses anew: python -m tests.kept losses')


@pytest.mark.parametrize('name', ['detector', 'classifier'])
@pytest.mark.parametrize('release', RELEASES, ids=lambda path: path.name)
def test_the_checkpoints_of_a_release_go_on(release, name, tmp_path):
    metrics = recipes.go_on(tmp_path, release, name)
    assert metrics == pytest.approx(recipes.metrics_of(release)[name], rel=1e-3)
    before = load_checkpoint_safely(release / f'{name}.pth')
    after = load_checkpoint_safely(tmp_path / name / 'last.pth')
    assert (before['meta']['epoch'], after['meta']['epoch']) == (1, 2)
    assert before.keys() == after.keys()
    for part in ('state_dict', 'distillation', 'mean_teachers'):
        assert (before.get(part) or {}).keys() == (after.get(part) or {}).keys()
    # The schedule went on with the second epoch's rate.
    assert after['optimizer']['param_groups'][0]['lr'] == pytest.approx(
        dict(detector=1e-4, classifier=1e-3)[name])
