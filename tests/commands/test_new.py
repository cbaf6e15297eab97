"""From a folder of photographs to a config that trains."""

import json
import re
import shlex

import pytest
from photo_folders import contents, image, voc_folder, xml

import mmkd
from mmkd.commands import main as mmkd_command
from mmkd.commands.browse import main as browse
from mmkd.commands.new import main as new
from mmkd.engine.config import load_config, validate_config
from mmkd.engine.data_root import use_data
from mmkd.registry import DATASETS


def listed(folder, split):
    return json.loads((folder / f'annotations/instances_{split}.json').read_text())


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder beside `photos of ü`."""
    (tmp_path / 'work').mkdir()
    monkeypatch.chdir(tmp_path / 'work')
    return tmp_path / 'work'


def failing(capsys, *args):
    with pytest.raises(SystemExit):
        new([*map(str, args)])
    return capsys.readouterr().err


def test_voc_to_a_config(here, capsys):
    root = voc_folder(here.parent / 'photos of ü', 12)
    xml(root / 'annotations/000.xml', ('cat', 1, 1, 21, 11), ('dog', 11, 11, 21, 21))
    before = contents(root)
    new([str(root), '--show'])
    said = capsys.readouterr().out
    assert contents(root) == before
    assert 'VOC XML; looking at 12 images' in said
    assert 'images:  12; 40x30 (12)' in said and 'objects: cat 12, dog 1' in said
    assert 'objects of 10 to 14 px, half of them below 10 px' in said  # 20 x 10: 14.1
    assert f'nothing in {root} was changed' in said and 'mine_data/sheet.png' in said
    assert (here / 'mine_data/sheet.png').stat().st_size > 1000
    assert len((here / 'mine.py').read_text().splitlines()) < 50

    specs = {split: listed(here / 'mine_data', split) for split in ('train', 'val', 'test')}
    assert sum(len(spec['images']) for spec in specs.values()) == 12
    assert sum(len(spec['annotations']) for spec in specs.values()) == 13
    boxes = [one['bbox'] for spec in specs.values() for one in spec['annotations']]
    assert sorted(boxes)[:2] == [[0, 0, 20, 10], [5, 5, 10, 10]]
    assert all((here / 'mine_data' / one['file_name']).is_file()
               for spec in specs.values() for one in spec['images'])

    cfg = load_config('mine.py')
    validate_config(cfg)
    assert cfg.model.bbox_head.num_classes == 2
    # objects of 10 px in 40: 12 px need an image of 48 px, a CPU's least is 160
    assert cfg.model.data_preprocessor.pad_size_divisor == cfg.image_size == 160
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.metainfo.classes == ('cat', 'dog')
        built = DATASETS.build(dataset)
        assert len(built) == len(specs[split]['images'])
        assert built[0]['inputs'].shape[1:] == (120, 160)
    assert cfg.test_evaluator.ann_file == str(here / 'mine_data/annotations/instances_test.json')
    assert cfg.val_evaluator.ann_file == str(here / 'mine_data/annotations/instances_val.json')


def test_the_commands_that_it_prints_lead_to_a_distilled_student(here, capsys):
    new([str(voc_folder(here.parent / 'photos', 8))])
    said = capsys.readouterr().out
    commands = [shlex.split(line, comments=True)[1:] for line in
                re.findall('^.*? +(mmkd .*)$', said, re.M)]
    assert [words[0] for words in commands] == ['browse', 'train', 'test', *3 * ['train']]
    small = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=2', 'amp=None',
             'model.backbone.base_channels=4', 'model.neck.in_channels=32', 'param_scheduler=None',
             'log_level=WARNING']
    for words in commands:
        mmkd_command(words + (small if words[0] == 'train' else []))
    assert sorted(path.name for path in (here / 'work_dirs').iterdir()) == [
        'mine', 'mine_distilled', 'mine_teacher']
    for run in (here / 'work_dirs').iterdir():
        assert (run / 'best.pth').is_file() and not list(run.glob('earlier_*'))
    cfg = load_config(here / 'work_dirs/mine_distilled')
    assert set(cfg.terms) == {'heatmap', 'wh', 'offset', 'feature'}
    assert cfg.teachers.mine_teacher.checkpoint == 'work_dirs/mine_teacher/best.pth'


def test_photographs_can_be_added(here, capsys):
    root = voc_folder(here.parent / 'photos', 20)
    new([str(root)])
    splits = ('train', 'val', 'test')
    before = {one['file_name']: split for split in splits
              for one in listed(here / 'mine_data', split)['images']}
    (here / 'mine.py').write_text((here / 'mine.py').read_text() + '# edited\n')
    voc_folder(root, 25)
    new([str(root)])
    assert 'was there and is kept' in capsys.readouterr().out
    assert (here / 'mine.py').read_text().endswith('# edited\n')
    after = {one['file_name']: split for split in splits
             for one in listed(here / 'mine_data', split)['images']}
    assert len(after) == 25 and {name: after[name] for name in before} == before
    xml(root / 'annotations/000.xml', ('dog', 1, 1, 11, 11))
    assert "'mine.py' exists and is not for the classes cat, dog" in failing(capsys, root)


def test_the_lists_are_a_folder_in_coco_layout(here):
    new([str(voc_folder(here.parent / 'photos', 8))])
    cfg = load_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    use_data(cfg, 'mine_data')
    assert cfg.model.bbox_head.num_classes == 1
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == ('cat', )
    assert dataset[0]['inputs'].shape[0] == 3


@pytest.mark.parametrize(('gpu', 'size'), [(True, 512), (False, 320)])
def test_objects_and_machine_choose_the_size(here, monkeypatch, gpu, size):
    import torch
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')  # mmengine's logger asks for its number
    for i in range(6):  # 10 of 424 px need 509 px to have 12; a CPU bears 320
        image(here.parent / f'photos/{i}.jpg', size=(424, 60), seed=i)
        xml(here.parent / f'photos/{i}.xml', ('cat', 1, 1, 11, 11), size=(424, 60))
    new([str(here.parent / 'photos')])
    cfg = load_config('mine.py')
    validate_config(cfg)
    assert cfg.image_size == cfg.model.data_preprocessor.pad_size_divisor == size
    assert (cfg.model.backbone.get('init_cfg') is not None) == gpu


def test_a_classifier(here, capsys, load_tool):
    from pathlib import Path
    root = here.parent / 'photos'
    for number, name in enumerate(('cat', 'dog', 'big bird')):
        for i in range(6):
            image(root / f'{name}/{i}.png', size=(16, 16), seed=10 * number + i)
    before = contents(root)
    new([str(root), '--out', 'pets.py'])
    assert contents(root) == before
    assert 'classes: big bird 6, cat 6, dog 6' in capsys.readouterr().out
    cfg = load_config('pets.py')
    validate_config(cfg)
    assert cfg.model.num_classes == 3
    built = [DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in
             ('train', 'val', 'test')]
    assert sum(map(len, built)) == 18 and built[0].images.shape[1:] == (3, 16, 16)
    assert [len(set(one.labels.tolist())) for one in built] == [3, 3, 3]
    tools = Path(mmkd.__file__).parents[1] / 'tools'
    load_tool(tools / 'train.py')('pets.py', '--epochs', '1', '--cfg-options', 'log_level=WARNING',
                                  'param_scheduler=None', 'default_hooks.checkpoint.interval=1')
    load_tool(tools / 'test.py')('pets.py', 'work_dirs/pets/ce_resnet8x4/epoch_1.pth', '--out',
                                 'test.json', '--cfg-options', 'log_level=WARNING')
    assert 'accuracy/top1' in json.loads(Path('test.json').read_text())
    cfg = load_config('pets.py', arguments=dict(method='kd', teacher='resnet8x4'))
    validate_config(cfg)
    assert cfg.teachers['resnet8x4'].model.num_classes == 3
    browse(['pets.py', '--number', '3'])
    assert (here / 'pets_train.png').is_file()


def test_browse_shows_the_boxes_where_the_network_sees_them(here, capsys):
    import cv2
    import numpy as np
    for i in range(6):
        photo = np.zeros((60, 80, 3), np.uint8)
        photo[20:40, 20:60] = (0, 0, 255)  # a red square, BGR
        photo[0, i] = 255  # no copies
        path = here.parent / f'photos/{i}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), photo)
        xml(path.with_suffix('.xml'), ('cat', 21, 21, 61, 41), size=(80, 60))
    new([str(here.parent / 'photos')])
    browse(['mine.py', '--out', 'seen.png', '--number', '2'])
    assert '2 training images: seen.png' in capsys.readouterr().out
    sheet = cv2.imread('seen.png')
    # 160 px with padding below, enlarged to 256: the square is at 64..192, 64..128
    assert sheet.shape == (256 + 6, 2 * (256 + 6), 3)
    cell = sheet[3:-3, 3:259].astype(int)
    assert (cell[90:110, 90:170] == (0, 0, 255)).all(-1).mean() > 0.9
    assert (cell[200:] == cell[200, 100]).all()  # padding
    found = np.argwhere(np.abs(cell - (51, 51, 255)).max(-1) < 8)  # hue 0 of one class
    assert abs(found.min(0)[1] - 64) <= 2 and abs(found.max(0) - (128, 192)).max() <= 2


@pytest.mark.parametrize(('out', 'says'), [
    ('photos/mine.py', 'would lie among the photographs'), ('mine.txt', 'is no name for a config'),
    ('my-own.py', 'is no name for a config'), ("it's/mine.py", 'quotation mark')])
def test_odd_places_for_the_config(here, capsys, monkeypatch, out, says):
    voc_folder(here.parent / 'photos', 4)
    monkeypatch.chdir(here.parent)
    assert says in failing(capsys, 'photos', '--out', out)
    assert not list(here.parent.rglob('mine.py'))


def test_another_folder_of_lists_is_not_written_to(here, capsys):
    voc_folder(here.parent / 'photos', 4)
    (here / 'mine_data').mkdir()
    assert "the folder 'mine_data' exists" in failing(capsys, here.parent / 'photos')
    assert not (here / 'mine.py').exists()


def test_what_is_wrong_is_said_before_the_error(here, capsys):
    voc_folder(here.parent / 'photos', 4, name='cta')
    with pytest.raises(SystemExit):
        new([str(here.parent / 'photos'), '--classes', 'cat'])
    said = capsys.readouterr()
    assert "4 objects of classes that are not asked for, left out: 'cta' (4)" in said.out
    assert 'error: Nothing is left to learn' in said.err
    assert not list(here.iterdir())
