"""tools/classification_table.py and the published numbers that it lists."""

import json
import re
import shlex
from pathlib import Path

import pytest

from mmkd.classification.published import CELLS, TEACHERS
from mmkd.registry import MODELS

ROOT = Path(__file__).parents[2]
HEAD = ('teacher', 'student', 'method', 'published', 'last', 'best', 'runs', 'command')
NO_DATA = ('data', 'cifar_240e', 'cifar_300e', 'imagenet_100e')
ALL = [cell for cells in CELLS.values() for cell in cells]

# Y. Tian, D. Krishnan, P. Isola, Contrastive Representation Distillation, ICLR 2020: the same
# numbers for the methods that both tables have, pair by pair.
PAIRS = {
    ('wrn_40_2', 'wrn_16_2'): 'kd 74.92 fitnet 73.58 at 74.08 rkd 73.35 crd 75.48 ce 73.26',
    ('wrn_40_2', 'wrn_40_1'): 'kd 73.54 fitnet 72.24 at 72.77 rkd 72.22 crd 74.14 ce 71.98',
    ('resnet56', 'resnet20'): 'kd 70.66 fitnet 69.21 at 70.55 rkd 69.61 crd 71.16 ce 69.06',
    ('resnet110', 'resnet32'): 'kd 73.08 fitnet 71.06 at 72.31 rkd 71.82 crd 73.48 ce 71.14',
    ('resnet32x4', 'resnet8x4'): 'kd 73.33 fitnet 73.50 at 73.44 rkd 71.90 crd 75.51',
    ('vgg13', 'vgg8'): 'kd 72.98 fitnet 71.02 at 71.43 rkd 71.48 crd 73.94 ce 70.36',
    ('vgg13', 'mobilenetv2_half'): 'kd 67.37 fitnet 64.14 at 59.40 rkd 64.52 crd 69.73 ce 64.60',
    ('resnet50_cifar', 'mobilenetv2_half'):
        'kd 67.35 fitnet 63.16 at 58.58 rkd 64.43 crd 69.11 ce 64.60',
    ('resnet32x4', 'shufflenetv1'): 'kd 74.07 fitnet 73.59 at 71.73 rkd 72.28 crd 75.11 ce 70.50',
    ('resnet32x4', 'shufflenetv2_1x'):
        'kd 74.45 fitnet 73.54 at 72.73 rkd 73.21 crd 75.65 ce 71.82',
    ('wrn_40_2', 'shufflenetv1'): 'kd 74.83 fitnet 73.73 at 73.32 rkd 72.21 crd 76.05 ce 70.50',
}


@pytest.fixture
def no_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'work_dirs'


def write_run(folder, last, top1=lambda epoch: 50.0, top5=90.0):
    """Write the accuracies of epochs 1 .. last as `BestAndLastHook` does."""
    folder.mkdir(parents=True)
    epochs = {epoch: {'accuracy/top1': top1(epoch), 'accuracy/top5': top5}
              for epoch in range(1, last + 1)}
    (folder / 'accuracy.json').write_text(json.dumps(epochs))


def rows(text):
    """Return the lines of all tables as lists of their cells."""
    lines = [[part.strip() for part in line.strip('|').split('|')]
             for line in text.splitlines() if line.startswith('|')]
    return [line for line in lines if line[0] not in ('teacher', '---')]


@pytest.mark.parametrize('pair', PAIRS)
def test_the_numbers_agree_with_an_independent_table(pair):
    words = PAIRS[pair].split()
    for method, top1 in zip(words[::2], words[1::2], strict=True):
        teacher = None if method == 'ce' else pair[0]
        [cell] = [c for c in ALL if (c.teacher, c.student, c.method, c.batch_size)
                  == (teacher, pair[1], method, None)]
        assert cell.top1 == float(top1)


def test_the_tables_are_whole():
    # 6 pairs and 9 methods; 5 pairs, of which two share their student twice; 2 pairs and 7
    # methods; 2 policies, 3 batch sizes, 2 pairs.
    assert [len(cells) for cells in CELLS.values()] == [54, 43, 14, 12]
    assert len({cell.command for cell in ALL + TEACHERS}) == len(ALL) + len(TEACHERS)
    main = {(c.teacher, c.student): c.top1 for c in ALL
            if c.method == 'fsecd' and not c.batch_size}
    by_batch = [c for c in ALL if c.method == 'fsecd' and c.batch_size == 128]
    assert [main[c.teacher, c.student] for c in by_batch] == [74.49, 76.57]
    assert {(c.data, c.teacher) for c in ALL if c.teacher} == {(c.data, c.student)
                                                               for c in TEACHERS}


@pytest.mark.parametrize('cell', ALL + TEACHERS, ids=lambda cell: f'{cell.data}-{cell.run}')
def test_what_a_command_names_exists(cell):
    for name in filter(None, (cell.teacher, cell.student)):
        assert MODELS.get(name) is not None
    assert (ROOT / f'configs/classification/methods/{cell.method}.py').is_file()
    assert (ROOT / f'configs/_base_/classification/{cell.data}.py').is_file()


@pytest.mark.parametrize('cell', [ALL[0], ALL[10], ALL[-1], *TEACHERS[:1]],
                         ids=lambda cell: cell.run)
def test_a_command_trains_into_the_folder_that_is_read(cell):
    from mmkd.engine.config import load_config
    words = shlex.split(cell.command)
    assert words[:3] == ['mmkd', 'train', 'classifier']
    end = words.index('--work-dir') if '--work-dir' in words else len(words)
    cfg = load_config(words[2], arguments={name.removeprefix('--'): value for name, value in
                                           zip(words[3:end:2], words[4:end:2], strict=True)})
    options = words[end:]
    work_dir = options[1] if options else cfg.work_dir
    assert work_dir == f'work_dirs/{cell.data}/{cell.run}'
    assert options[2:] == ([] if cell.batch_size is None else
                           ['--cfg-options', f'train_dataloader.batch_size={cell.batch_size}'])
    assert list(cfg.get('teachers', {})) == ([cell.teacher] if cell.teacher else [])
    if cell.teacher:  # the command of the teacher's own row puts it there
        [own] = [c for c in TEACHERS if (c.data, c.student) == (cell.data, cell.teacher)]
        assert cfg.teachers[cell.teacher].checkpoint.startswith(
            f'work_dirs/{own.data}/{own.run}/epoch_')


def test_everything_is_listed_and_nothing_is_measured(tool, no_runs):
    status, out, err = tool('classification_table.py')
    assert status == 0, err
    assert out.startswith('### Teachers')
    listed = rows(out)
    assert len(listed) == 123 + 8
    assert all(line[4:7] == ['', '', ''] for line in listed)
    assert ['resnet32x4', 'shufflenetv1', 'ofd', '75.98'] in [line[:4] for line in listed]
    assert ['imagenet_resnet50', 'imagenet_mobilenetv1', 'dkd', '72.01 / 90.02'] in [
        line[:4] for line in listed]


def test_seeds_are_averaged_and_unfinished_runs_are_told(tool, no_runs):
    runs = no_runs / 'cifar100'
    # Highest at epoch 239: 76.0, 76.4 and 77.1; at the end 75.0, 75.4 and 76.1.
    for name, end in (('', 75.0), ('_seed1', 75.4), ('_seed2', 76.1)):
        write_run(runs / f'dkd_resnet32x4_resnet8x4{name}', 240,
                  lambda epoch, end=end: end + (epoch == 239) - (epoch < 239))
    write_run(runs / 'dkd_resnet32x4_resnet8x4_seed3', 17)
    write_run(runs / 'dkd_resnet32x4_resnet8x4_seedless', 240)  # no seed: not read
    status, out, err = tool('classification_table.py', '--student', 'resnet8x4',
                            '--method', 'dkd', '--out', 'deep/table.md')
    assert (status, out) == (0, ''), err
    table = rows((no_runs.parent / 'deep/table.md').read_text())
    assert [line[1] for line in table] == ['resnet32x4', 'resnet8x4']  # the teacher's row first
    # Mean of 75, 75.4, 76.1; their deviations -.5, -.1, .6: sqrt(.62 / 2) = 0.5568
    assert table[1][3:7] == ['75.92', '75.50 ± 0.56', '76.50 ± 0.56',
                             '3; not finished: epoch 17 of 240']


def test_imagenet_has_two_metrics_and_its_own_length(tool, no_runs):
    write_run(no_runs / 'imagenet/kd_imagenet_resnet34_imagenet_resnet18', 100, top1=float)
    write_run(no_runs / 'imagenet/ce_imagenet_resnet18', 99)
    _, out, _ = tool('classification_table.py', '--data', 'imagenet',
                     '--student', 'imagenet_resnet18')
    table = {line[2]: line[3:7] for line in rows(out)[1:]}
    assert table['kd'] == ['71.03 / 90.05', '100.00 / 90.00', '100.00 / 90.00', '1']
    assert table['ce'] == ['69.75 / 89.07', '', '', 'not finished: epoch 99 of 100']


def test_the_document_shows_the_table_and_names_everything(tool, no_runs):
    document = (ROOT / 'docs/classification.md').read_text()
    _, out, _ = tool('classification_table.py')
    shown = [line[:4] + line[7:] for line in rows(document) if len(line) == len(HEAD)]
    assert shown == [line[:4] + line[7:] for line in rows(out)]
    for folder in ('classification/methods', '_base_/classification'):
        for path in (ROOT / 'configs' / folder).glob('[!_]*.py'):
            if path.stem not in NO_DATA:
                assert f'| `{path.stem}` |' in document
    for name in re.findall(r'^\| `(\w+)` \| [\d,]+ \| ', document, re.M):
        assert MODELS.get(name) is not None


@pytest.mark.parametrize('args, sentence', [
    (['--student', 'resnet8x5'], "--student 'resnet8x5' is in no published table. Did you mean"),
    (['--method', 'fsecd', '--student', 'resnet56'], "--student 'resnet56' is in no published"),
    (['--method', 'ofd', '--student', 'resnet20', '--data', 'imagenet'],
     'no published cell fits --data imagenet --method ofd --student resnet20'),
    (['--student', 'vgg8', '--out', 'file/table.md'], "cannot write 'file/table.md'"),
    (['--student', 'vgg8', '--work-dirs', 'broken'], 'does not hold the accuracy of every epoch'),
])
def test_table_errors_are_one_line(args, sentence, tool, no_runs):
    (no_runs.parent / 'file').write_text('')
    (no_runs.parent / 'broken/cifar100/ce_vgg8').mkdir(parents=True)
    (no_runs.parent / 'broken/cifar100/ce_vgg8/accuracy.json').write_text('{"1": {"top1": 3}}')
    status, out, err = tool('classification_table.py', *args)
    assert (status, out) == (1, '')
    [line] = err.splitlines()
    assert line.startswith('error: ')
    assert sentence in line
