"""AMP, channels_last and compile: the same training, the same checkpoints."""

import copy
import os
import shutil
import socket
import uuid
from pathlib import Path

import helpers
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch.utils.data import Dataset

from mmkd.checkpoints import load_checkpoint_safely
from mmkd.classification.data import ClassificationSample
from mmkd.distillation import inference
from mmkd.distillation.taps import TapRecorder
from mmkd.engine.config import validate_config
from mmkd.engine.launch import train
from mmkd.engine.student_options import compile_student, use_channels_last, use_mixed_precision
from mmkd.errors import UserError
from mmkd.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[2]
# The graphs, without the C++ that torch.compile would make of them by default.
GRAPHS = dict(backend='aot_eager')
EXACT = [dict(channels_last=True), dict(compile=GRAPHS)]
ROUNDED = [dict(amp='bf16'), dict(amp='fp16'),
           dict(amp='bf16', channels_last=True, compile=GRAPHS)]


@DATASETS.register_module(force=True)
class Stripes(Dataset):
    """Two classes of noisy images that a tiny network tells apart: stripes along x or along y."""

    metainfo = dict(classes=('x', 'y'))  # noqa: RUF012
    labels = torch.arange(16) % 2

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return self.__getitems__([index])

    def __getitems__(self, indices):
        wave = 100 * torch.sin(torch.arange(16.0))
        images = torch.stack([
            128 + (wave if i % 2 else wave[:, None]) + 20 * torch.randn(
                3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in indices])
        indices = torch.tensor(indices)
        return dict(inputs=images.clamp(0, 255).to(torch.uint8), data_samples=ClassificationSample(
            labels=self.labels[indices], indices=indices))


def classifier():
    model = dict(type='Classifier', backbone=dict(type='ResNetCIFAR', depth=8), num_classes=2,
                 data_preprocessor=dict(type='BatchPreprocessor', mean=[128.0] * 3, std=[64.0] * 3,
                                        crop_padding=0, flip=False))
    return model, dict(batch_size=8, dataset=dict(type='Stripes'),
                       collate_fn=dict(type='whole_batch'))


def detector():
    return helpers.centernet(), dict(batch_size=4, dataset=dict(type='NoiseDetection'))


def run(folder, make, iters=12, resume=None, hooks=(), launcher='none', **options):
    """Train on two batches in turn, as mmkd train does; return losses and checkpoint."""
    model, data = make()
    start = helpers.build(model)
    start.init_weights()
    written = folder / f'start_{os.getpid()}.pth'  # two processes may be at it
    torch.save(dict(state_dict=start.state_dict()), written)
    written.replace(folder / 'start.pth')
    cfg = helpers.train_config(folder, model, hooks, iters)
    # At the end of the data mmengine would sleep for two seconds.
    cfg.train_dataloader.update(data, sampler=dict(type='InfiniteSampler', shuffle=False))
    cfg.optim_wrapper.optimizer.lr = 0.05 if make is detector else 0.02
    cfg.default_hooks.checkpoint = dict(type='SafeCheckpointHook', interval=iters, by_epoch=False)
    cfg.load_from = None if resume else str(folder / 'start.pth')
    cfg.update(options)
    # An id may come again, and mmengine would go on with the losses of the run before.
    cfg.launcher, cfg.experiment_name = launcher, f'options_{uuid.uuid4().hex}'
    validate_config(cfg)
    train(cfg, resume)
    losses = MessageHub.get_current_instance().get_scalar('train/loss').data[0]
    return torch.tensor(losses), load_checkpoint_safely(folder / f'iter_{iters}.pth')


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """What training is without options, in float32."""
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmkd'):
        return {make: run(tmp_path_factory.mktemp(make.__name__), make)
                for make in (classifier, detector)}


def distance(folder, state, other):
    """How far weights are apart after training, in units of how far training moved them."""
    start = load_checkpoint_safely(folder / 'start.pth')['state_dict']
    assert [(name, value.shape, value.dtype) for name, value in state.items()] == [
        (name, value.shape, value.dtype) for name, value in other.items()]
    names = [name for name in state if name.endswith(('weight', 'bias'))]
    apart = sum((state[name] - other[name]).square().sum() for name in names)
    return (apart / sum((start[name] - other[name]).square().sum() for name in names)).sqrt()


@pytest.mark.parametrize('make', [classifier, detector])
@pytest.mark.parametrize('options', EXACT, ids=str)
def test_training_is_the_same(make, options, plain, tmp_path):
    losses, saved = run(tmp_path, make, **options)
    expected_losses, expected = plain[make]
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=1e-4)
    assert distance(tmp_path, saved['state_dict'], expected['state_dict']) < 1e-3


@pytest.mark.parametrize('make', [classifier, detector])
@pytest.mark.parametrize('options', ROUNDED, ids=str)
def test_training_in_lower_precision_comes_to_the_same_place(make, options, plain, tmp_path):
    losses, saved = run(tmp_path, make, **options)
    expected_losses, expected = plain[make]
    begin, end = expected_losses[:2].mean(), expected_losses[-2:].mean()
    assert end < 0.8 * begin  # it has learnt something
    # The first loss differs by rounding alone, its fall in 12 steps by a fifth at most.
    torch.testing.assert_close(losses[0], expected_losses[0], rtol=2e-3, atol=0)
    assert abs(losses[-2:].mean() - end) < 0.2 * (begin - end)
    # Networks as narrow as these carry roundings far; the way they went is the same.
    assert distance(tmp_path, saved['state_dict'], expected['state_dict']) < 0.7


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which('g++') or shutil.which('clang++')),
                    reason='torch.compile needs a C++ compiler')
def test_compiled_training_is_the_same(plain, tmp_path):
    losses, saved = run(tmp_path, classifier, compile=True)
    torch.testing.assert_close(losses, plain[classifier][0], rtol=1e-4, atol=1e-4)
    assert distance(tmp_path, saved['state_dict'], plain[classifier][1]['state_dict']) < 1e-3


@pytest.mark.parametrize('options, then', [
    (dict(), dict(amp='fp16', channels_last=True, compile=GRAPHS)),
    (dict(amp='fp16', channels_last=True), dict()),
    (dict(amp='fp16'), dict(amp='bf16'))], ids=str)
def test_a_run_goes_on_with_other_options(options, then, plain, tmp_path):
    run(tmp_path, classifier, iters=6, **options)
    losses, saved = run(tmp_path, classifier, 12, str(tmp_path / 'iter_6.pth'), **then)
    assert len(losses) == 12
    torch.testing.assert_close(losses, plain[classifier][0], rtol=0, atol=0.01)
    if then.get('amp') == 'fp16':
        assert saved['optimizer']['loss_scaler']['scale'] > 0


def test_taps_inside_a_compiled_network():
    torch.manual_seed(0)
    model = MODELS.build(helpers.centernet()).train()
    # A batch norm's output that a ReLU behind it overwrites, stages, and all maps of the head.
    taps = ['backbone.bn1', 'backbone.layer2.0.bn1', 'backbone.layer3', 'neck:input:-1',
            'bbox_head:*:-1']
    recorder = TapRecorder(model, taps)
    inputs = torch.randn(2, 3, 64, 64)

    def features():
        recorder.start()
        model.bbox_head(model.extract_feat(inputs))
        return recorder.take()

    recorder.dry_run(lambda: model.bbox_head(model.extract_feat(inputs)))
    eager = features()
    assert len(eager) == 4 + 3
    names = list(model.state_dict())
    compile_student(model, GRAPHS)
    for tap, value in features().items():
        torch.testing.assert_close(value, eager[tap], rtol=1e-4, atol=1e-5)
    assert eager['backbone.bn1'].min() < 0
    assert list(model.state_dict()) == names


def test_distillation_of_a_compiled_student_is_the_same(tmp_path):
    teacher = helpers.save_teacher(tmp_path, 'teacher', helpers.centernet())
    hooks = helpers.distillation(
        dict(teacher=teacher), helpers.centernet_terms('heatmap', weight=10.0) | dict(
            early=dict(tap='backbone.bn1', weight=0.1, loss=dict(type='FitNetLoss'))))
    losses = [run(tmp_path, detector, iters=3, hooks=hooks, **options)[0]
              for options in (dict(), dict(channels_last=True, compile=GRAPHS))]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('method', sorted(
    path.stem for path in (ROOT / 'configs/classification/methods').glob('*.py')))
def test_every_loss_takes_features_in_channels_last_and_bfloat16(method, tmp_path, cifar_config):
    teacher = MODELS.build(dict(type='Classifier', backbone=dict(type='resnet14'), num_classes=10))
    torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
    cfg = cifar_config('configs/classification/distill.py', tmp_path, method=method,
                       student='resnet8', teacher='resnet14',
                       checkpoint=tmp_path / 'teacher.pth')
    train(Config(cfg.to_dict() | dict(channels_last=True, amp='bf16')))
    state = load_checkpoint_safely(tmp_path / 'epoch_1.pth')['state_dict']
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize('network', ['wrn_16_1', 'vgg8', 'mobilenetv2_half', 'shufflenetv1'])
def test_every_family_takes_channels_last(network):
    torch.manual_seed(0)
    model = MODELS.build(dict(classifier()[0], backbone=dict(type=network))).train()
    inputs = torch.randn(4, 3, 32, 32)
    expected = model(inputs)
    use_channels_last(model)
    torch.testing.assert_close(model(inputs), expected, rtol=1e-4, atol=1e-4)


def test_a_detector_in_channels_last_finds_the_same():
    model = MODELS.build(helpers.centernet()).eval()
    sample = DATASETS.build(dict(type='NoiseDetection'))[0]

    def boxes():
        found = model.test_step(dict(inputs=[sample['inputs']],
                                     data_samples=[sample['data_samples'].clone()]))
        return found[0].pred_instances

    expected = boxes()
    use_channels_last(model)
    torch.testing.assert_close(boxes().scores, expected.scores)
    torch.testing.assert_close(boxes().bboxes, expected.bboxes, rtol=1e-3, atol=1e-2)


def test_channels_last_is_of_the_weights():
    model = MODELS.build(classifier()[0])
    use_channels_last(model)
    out = model.backbone.stem(torch.randn(2, 3, 16, 16))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_strided_depthwise_convolutions_stay_in_float32():
    from mmkd.engine.amp import keep_strided_depthwise_in_float32
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, stride=2, groups=8),
        torch.nn.Conv2d(8, 8, 3, groups=8))
    names, strided = list(network.state_dict()), network[1]
    keep_strided_depthwise_in_float32(network)
    assert list(network.state_dict()) == names
    assert copy.deepcopy(network)[1].weight.equal(strided.weight)
    x = torch.randn(2, 8, 9, 9, dtype=torch.bfloat16)
    expected = torch.nn.functional.conv2d(x.float(), strided.weight, strided.bias, 2, groups=8)
    with torch.autocast('cpu', torch.bfloat16):
        assert strided(x).equal(expected.to(torch.bfloat16))
    assert strided(x.float()).equal(expected)
    assert {type(network[0]), type(network[2])} == {torch.nn.Conv2d}


@pytest.mark.parametrize('device, amp, expected', [
    ('gpu', 'fp16', dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
    ('gpu', 'bf16', dict(type='AmpOptimWrapper', dtype='bfloat16',
                         loss_scale=dict(enabled=False))),
    ('gpu', 'auto', dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
    ('cpu', 'auto', dict(type='CPUAmpOptimWrapper', dtype='bfloat16')),
    ('cpu', 'fp16', dict(type='CPUAmpOptimWrapper', dtype='float16')),
    ('cpu', None, dict(type='OptimWrapper')), ('gpu', False, dict(type='OptimWrapper')),
    ('cpu without bfloat16', 'auto', dict(type='OptimWrapper')),
    ('cpu without bfloat16', 'bf16', dict(type='CPUAmpOptimWrapper', dtype='bfloat16'))])
def test_optimizer_wrapper(device, amp, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: device == 'gpu')
    monkeypatch.setattr(inference, 'computes_in_bfloat16',
                        lambda: device != 'cpu without bfloat16')
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper'), amp=amp))
    use_mixed_precision(cfg)
    assert cfg.optim_wrapper.to_dict() == expected


def test_an_overflow_leaves_the_weights_alone():
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    from mmkd.engine.amp import CPUAmpOptimWrapper
    wrapper = CPUAmpOptimWrapper('float16', optimizer=torch.optim.SGD(layer.parameters(), lr=1.0))
    wrapper.update_params((layer(torch.ones(1, 2)) * float('inf')).sum())
    assert torch.equal(layer.weight, before)
    assert wrapper.loss_scaler.get_scale() == 2.0 ** 15
    assert wrapper.state_dict()['loss_scaler']['scale'] == 2.0 ** 15


@pytest.mark.parametrize('call, message', [
    (lambda: use_mixed_precision(Config(dict(optim_wrapper=dict(), amp='bf61'))),
     "amp is 'bf61': give 'fp16', 'bf16' or 'auto'"),
    (lambda: use_mixed_precision(Config(dict(optim_wrapper=dict(type='Mine'), amp='bf16'))),
     "optim_wrapper.type is 'Mine'"),
    (lambda: compile_student(torch.nn.Linear(1, 1), 'fast'), "compile is 'fast': give True or a"),
])
def test_what_it_refuses(call, message):
    with pytest.raises(UserError, match=message):
        call()


def _process(rank, port, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmkd'):
        run(folder, classifier, iters=3, launcher='pytorch', channels_last=True, compile=GRAPHS,
            amp='bf16')
    os._exit(0)  # gloo now and then aborts a process that is taken down with DDP's modules


@pytest.mark.dist
@pytest.mark.matrix
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (port, tmp_path), nprocs=2)
    saved = load_checkpoint_safely(tmp_path / 'iter_3.pth')['state_dict']
    model = MODELS.build(classifier()[0])
    assert list(saved) == list(model.state_dict())
    assert all(value.isfinite().all() for value in saved.values())


def test_resume_in_an_empty_folder_begins_with_the_weights_that_are_named(tmp_path, plain):
    start = str(tmp_path / 'start.pth')
    losses, _ = run(tmp_path, detector, resume='auto', load_from=start)
    assert torch.equal(losses, plain[detector][0])
    longer, _ = run(tmp_path, detector, iters=14, resume='auto', load_from=start)
    assert len(longer) == 14 and torch.equal(longer[:12], losses), 'there it goes on'
