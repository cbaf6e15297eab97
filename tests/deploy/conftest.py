"""One tiny detector, exported once, and a few images of all shapes."""

from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
from helpers import CLASSES, centernet
from mmengine.config import Config, ConfigDict
from reference import ROOT, config_of, lively, with_bias

from mmkd.deploy import Detector
from mmkd.deploy.export import export_onnx, load_model


@pytest.fixture(scope='session')
def detector_config():
    """Two stages of a ResNet and one deconvolution: few layers, so that it exports fast."""
    config = centernet(deconvs=1)
    config.backbone.update(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
    config.neck.in_channels = 8
    config.test_cfg = ConfigDict(topk=100, local_maximum_kernel=3, max_per_img=100)
    return config


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """Paths of photographs' stand-ins: smooth noise, landscape, portrait, odd, tiny, exact."""
    folder = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for i, (height, width) in enumerate([(75, 100), (101, 37), (33, 20), (64, 64), (20, 127)]):
        coarse = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), cv2.resize(coarse, (width, height)))
    return sorted(folder.glob('*.png'))


@pytest.fixture(scope='session')
def exported(detector_config, images, tmp_path_factory):
    """The detector as trained (config and checkpoint files), loaded, and exported."""
    folder = tmp_path_factory.mktemp('exported')
    cfg = config_of(detector_config)
    cfg.dump(folder / 'config.py')
    trained = lively(detector_config)
    torch.save(dict(state_dict=trained.state_dict(),
                    meta=dict(dataset_meta=dict(classes=CLASSES))), folder / 'epoch_1.pth')
    model = load_model(Config.fromfile(folder / 'config.py'), folder / 'epoch_1.pth')
    checks = export_onnx(model, folder / 'student.onnx', images)
    return SimpleNamespace(model=model, checks=checks, onnx=folder / 'student.onnx',
                           config=folder / 'config.py', checkpoint=folder / 'epoch_1.pth')


@pytest.fixture(scope='session')
def detector(exported, tmp_path_factory):
    """That of `exported`, whose boxes are next to points, with boxes wider and higher by six cells.

    Checkpoint, file and model.
    """
    folder, bias = tmp_path_factory.mktemp('larger'), 'bbox_head.wh_head.2.bias'
    checkpoint = torch.load(exported.checkpoint, weights_only=True)
    checkpoint['state_dict'][bias] += 6
    torch.save(checkpoint, folder / 'epoch_1.pth')
    proto = with_bias(exported.onnx, bias, 6)
    onnx.helper.set_model_props(proto, Detector(exported.onnx).metadata.to_props())
    onnx.save(proto, folder / 'student.onnx')
    return SimpleNamespace(checkpoint=folder / 'epoch_1.pth', onnx=folder / 'student.onnx',
                           model=load_model(exported.model.cfg, folder / 'epoch_1.pth'))


@pytest.fixture
def run(request, load_tool):
    """The tool that a file of tests names: `TOOL = 'export.py'`."""
    return load_tool(ROOT / 'tools' / request.module.TOOL)


@pytest.fixture
def errors(run, capsys):
    """Run the tool to its one error; return the lines of stderr, of which that is the last."""
    def failing(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(*args)
        assert ended.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        assert [line.startswith('error: ') for line in lines] == [False] * (len(lines) - 1) + [True]
        return lines
    return failing
