"""tools/train.py, test.py, dist_train.sh and dist_test.sh."""

import errno
import json
import math
import re
import subprocess
import sys
import time

import cv2
import pytest
import torch
from helpers import DRAWN_DETECTOR
from tiny_run import ROOT, write_config

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.detection.data.synthetic import DRAWN_CLASSES, draw_dataset

CENTERNET = DRAWN_DETECTOR + """
model['data_preprocessor'] = dict(pad_size_divisor=64)
image_size = 64
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
"""


@pytest.fixture
def centernet(tmp_path, monkeypatch):
    """Config of a CenterNet of a few seconds; an odd number of test images."""
    draw_dataset(tmp_path / 'drawn', splits=dict(train=8, val=3, test=5), image_size=64)
    monkeypatch.setenv('DRAWN_ROOT', f"{tmp_path / 'drawn'}/")
    path = tmp_path / 'centernet.py'
    path.write_text(CENTERNET.format(root=ROOT, width=8))
    return path


def test_centernet_trains_and_tests(centernet, tool, tmp_path):
    work = tmp_path / 'work'
    status, out, err = tool('train.py', centernet, '--work-dir', work, '--amp', '--channels-last')
    assert status == 0, err
    log = (work / 'train.log').read_text()
    assert log.index('mmcv operators') < log.index('Epoch(train)')  # the report is at the head
    assert 'CPUAmpOptimWrapper' in log
    state = load_checkpoint_safely(work / 'epoch_1.pth')['state_dict']
    assert all(value.isfinite().all() for value in state.values())

    status, out, err = tool('test.py', centernet, work / 'epoch_1.pth', '--work-dir', work,
                            '--out', tmp_path / 'metrics.json', '--show-dir', tmp_path / 'shown')
    assert status == 0, err
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert {'pascal_voc/mAP', 'pascal_voc/mAP_11points', 'pascal_voc/mAP_area'} <= set(metrics)
    assert all(0 <= value <= 1 for value in metrics.values() if not math.isnan(value))
    for name, value in metrics.items():
        assert f'{name}: {value}' in out
    assert len(list((tmp_path / 'shown').glob('*.[jp][pn]g'))) == 5


@pytest.fixture
def untrained(centernet, tmp_path):
    """Checkpoint of a CenterNet whose scores all are the sigmoid of -1, 0.2689."""
    from mmkd.distillation.teachers import build_model
    model = build_model(centernet)
    torch.nn.init.zeros_(model.bbox_head.heatmap_head[-1].weight)
    torch.nn.init.constant_(model.bbox_head.heatmap_head[-1].bias, -1)
    torch.nn.init.zeros_(model.bbox_head.wh_head[-1].weight)
    with torch.no_grad():  # boxes of 5 x 5 cells
        model.bbox_head.wh_head[-1].bias.fill_(5)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'untrained.pth')
    return tmp_path / 'untrained.pth'


def _changed_pictures(folder, drawn):
    return sum((cv2.imread(str(path)) != cv2.imread(str(drawn / path.name))).any()
               for path in folder.iterdir())


def test_show_dir_draws_above_the_score_of_option_or_config(centernet, untrained, tool, tmp_path):
    def shown(name, *args):
        status, out, err = tool('test.py', centernet, untrained, '--work-dir', tmp_path / 'work',
                                '--show-dir', tmp_path / name, *args)
        assert (status, err) == (0, '')
        return _changed_pictures(tmp_path / 'images', tmp_path / name), out

    # What drawing alone does to a picture, by a threshold that nothing reaches.
    shown('images', '--score-thr', 1.1)
    count, out = shown('default')
    assert 'with a score of at least 0.2\n' in out
    count, out = shown('above', '--score-thr', 0.3)
    assert count == 0
    assert (f"5 pictures in {tmp_path / 'above'}: left the labels, right what was found with a "
            'score of at least 0.3\n') in out
    assert 'best score 0.26 is below 0.3: nothing drawn on 5 of 5 images, lower --score-thr' in out
    count, out = shown('config', '--cfg-options', 'default_hooks.visualization.score_thr=0.001')
    assert count == 5
    assert 'nothing drawn' not in out
    count, out = shown('option', '--score-thr', 0, '--cfg-options',
                       'default_hooks.visualization.score_thr=0.9')
    assert count == 5
    assert 'nothing drawn' not in out
    # Boxes that are turned inside out are left out.
    checkpoint = torch.load(untrained)
    checkpoint['state_dict']['bbox_head.wh_head.2.bias'].fill_(-5)
    torch.save(checkpoint, untrained)
    count, _ = shown('turned', '--score-thr', 0)
    assert (count, len(list((tmp_path / 'turned').iterdir()))) == (0, 5)


@pytest.mark.dist
@pytest.mark.slow
def test_two_processes_train_and_test_on_the_cpu(centernet, script, tool, tmp_path):
    work = tmp_path / 'work'
    out = script('dist_train.sh', centernet, 2, '--work-dir', work)
    assert 'Distributed launcher: pytorch' in (work / 'train.log').read_text()
    assert 'Failed to search registry' not in out
    # 8 images, 2 processes, batches of 2
    assert '[1][2/2]' in out
    script('dist_test.sh', centernet, work / 'epoch_1.pth', 2, '--work-dir', work,
           '--out', tmp_path / 'two.json')
    tool('test.py', centernet, work / 'epoch_1.pth', '--work-dir', work,
         '--out', tmp_path / 'one.json')
    one, two = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('one', 'two'))
    assert one == two
    assert one


@pytest.mark.slow
def test_kill_9_then_resume(tool, environment, tmp_path):
    config = write_config(tmp_path, 'train_cfg["max_epochs"] = 3000\n')
    args = ['train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options']
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'tools/train.py'), *map(str, args[1:]), 'log_level=ERROR'],
        env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / 'work/epoch_20.pth').exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()  # SIGKILL
        process.wait()
    last = int((tmp_path / 'work/last_checkpoint').read_text().rpartition('_')[2][:-4])
    status, out, err = tool(*args, f'train_cfg.max_epochs={last + 2}', '--resume')
    assert status == 0, err
    assert f'resumed epoch: {last}' in out
    assert f'Epoch(train) [{last}]' not in out
    end = load_checkpoint_safely(tmp_path / f'work/epoch_{last + 2}.pth')
    assert end['meta']['epoch'] == last + 2


def test_epochs_take_the_schedule_along(tool, tmp_path, monkeypatch):
    config = write_config(tmp_path)  # 4 epochs, T_max=4
    mismatch = 'the learning-rate schedule ends at epoch 4 and training at epoch 1'
    monkeypatch.chdir(tmp_path)
    work = tmp_path / 'work_dirs/tiny'  # named after the config
    status, out, err = tool('train.py', config, '--epochs', 1, '--resume')
    assert status == 0, err
    assert re.search("nothing to resume in '.*work_dirs/tiny'", out + err)
    assert mismatch not in out + err
    assert load_checkpoint_safely(work / 'epoch_1.pth')['param_schedulers'][0]['T_max'] == 1
    stays = 'schedule stays that of the 1 epochs it began with, and training now ends at epoch 2'
    status, out, err = tool('train.py', config, '--epochs', 2, '--resume')
    assert status == 0, err
    assert (out + err).count(stays) == 1
    end = load_checkpoint_safely(work / 'epoch_2.pth')
    assert end['param_schedulers'][0]['T_max'] == 1  # as said
    status, out, err = tool('train.py', config, '--work-dir', tmp_path / 'other', '--cfg-options',
                            'train_cfg.max_epochs=1')
    assert status == 0, err
    assert (out + err).count(mismatch) == 1


@pytest.mark.parametrize('args, sentence', [
    (['train.py', 'nowhere/tiny.py'], "config 'nowhere/tiny.py' does not exist"),
    (['train.py', 'CONFIG', '--cfg-options', 'model.bad_step=1'], 'the loss is not finite or'),
    (['train.py', 'CONFIG', '--resume', 'gone.pth'], "checkpoint 'gone.pth' does not exist"),
    (['train.py', 'CONFIG', '--launcher', 'pytorch'], 'torchrun did not start this process'),
    (['train.py', 'CONFIG', '--cfg-options', 'load_from=http://a.b/c.pth'], 'download the file'),
    (['test.py', 'CONFIG', 'gone.pth', '--score-thr', '0'], '--score-thr was given without'),
    (['test.py', 'CONFIG', 'gone.pth'], "checkpoint 'gone.pth' does not exist"),
    (['test.py', 'CONFIG', 'other.pth'], 'is of another architecture'),
    (['test.py', 'CONFIG', 'cut.pth'], "checkpoint 'cut.pth' is truncated"),
    (['test.py', 'CONFIG', 'cut.pth', '--out', 'cut.pth/x.json'], "cannot write 'cut.pth/x.json'"),
    (['test.py', 'CONFIG', 'cut.pth', '--show-dir', 'cut.pth'], "cannot write 'cut.pth/"),
    (['train.py', 'CONFIG', '--dump', 'cut.pth/x.py'], "cannot write 'cut.pth/x.py'"),
    (['train.py', 'CONFIG', '--work-dir', 'cut.pth'],
     "work directory 'cut.pth' cannot be made or written to ("),
    (['test.py', 'CONFIG', 'other.pth', '--work-dir', 'cut.pth/below'],
     "work directory 'cut.pth/below' cannot be made or written to ("),
])
def test_errors_are_one_line(args, sentence, tool, tmp_path, monkeypatch):
    if sentence.startswith('torchrun') and torch.cuda.is_available():
        pytest.skip('with a GPU mmengine itself looks for torchrun')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RANK', raising=False)
    torch.save(dict(state_dict=dict(a=torch.zeros(3))), 'other.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'other.pth').read_bytes()[:200])
    config = write_config(tmp_path)
    status, _, err = tool(*[config if arg == 'CONFIG' else arg for arg in args])
    errors = [line for line in err.splitlines() if line.startswith('error: ')]
    assert status == 1
    assert len(errors) == 1
    assert sentence in errors[0]
    assert 'Traceback' not in err


def test_a_read_only_work_dir_is_one_line(tool, tmp_path, monkeypatch):
    def refuse(**options):
        raise OSError(errno.EROFS, 'Read-only file system')
    monkeypatch.setattr('mmkd.engine.launch.TemporaryFile', refuse)
    status, _, err = tool('train.py', write_config(tmp_path), '--work-dir', tmp_path / 'work')
    assert status == 1
    assert 'written to (Read-only file system): name another one with --work-dir' in err


def test_ctrl_c_names_the_way_on(tool, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr('tiny_run.TinyModel.forward', interrupt)
    status, _, err = tool('train.py', write_config(tmp_path), '--work-dir', tmp_path / 'work')
    assert status == 130
    assert err.endswith('interrupted; continue with --resume\n')


def test_drawn_classes_are_the_config_s():
    from mmkd.engine.config import load_config
    assert tuple(load_config(ROOT / 'configs/_base_/datasets/drawn.py').classes) == tuple(
        DRAWN_CLASSES)
