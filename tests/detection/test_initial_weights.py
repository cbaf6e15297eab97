"""Initial weights: fetched once, checked, and every failure says what to do."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config, ConfigDict, DictAction

from mmkd.detection.initial_weights import fetch_initial_weights
from mmkd.errors import UserError
from mmkd.registry import MODELS

MODEL_BASES = Path(__file__).parents[2] / 'configs/_base_/models'
BACKBONE = dict(type='ResNet', depth=18, base_channels=4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Point PyTorch's hub cache to an empty folder."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home/hub/checkpoints'


@pytest.fixture
def published(tmp_path):
    """Write the weights of a small ResNet under a name with their hash, as publishers do."""
    file = tmp_path / 'weights.pth'
    torch.manual_seed(3)
    torch.save(MODELS.build(BACKBONE).state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return file.rename(tmp_path / f'tiny-{digest[:8]}.pth')


def make_cfg(checkpoint, backbone=BACKBONE, **init_cfg):
    return Config(dict(model=dict(
        type='CenterNet',
        backbone=dict(backbone, init_cfg=dict(
            type='Pretrained', checkpoint=str(checkpoint), **init_cfg)),
        neck=None, bbox_head=dict(
            type='CenterNetHead', in_channels=32, feat_channels=4, num_classes=2))))


def message_of(cfg):
    with pytest.raises(UserError) as caught:
        fetch_initial_weights(cfg)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_a_url_is_fetched_once_and_initialises_the_model(published, cache):
    expected = torch.load(published)
    cfg = make_cfg(published.as_uri())
    state = torch.get_rng_state()
    fetch_initial_weights(cfg)
    assert torch.equal(torch.get_rng_state(), state), 'the random state is left alone'
    local = Path(cfg.model.backbone.init_cfg.checkpoint)
    assert local == cache / published.name
    model = MODELS.build(cfg.model)
    model.init_weights()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, expected[name]), name

    url = published.as_uri()
    published.unlink()  # as without a network
    again = make_cfg(url)
    fetch_initial_weights(again)
    assert again.model.backbone.init_cfg.checkpoint == str(local)


def test_a_damaged_download_is_refused_and_not_kept(published, cache):
    wrong = published.with_name('tiny-00000000.pth')
    published.rename(wrong)
    message = message_of(make_cfg(wrong.as_uri()))
    assert 'invalid hash value (expected "00000000"' in message
    assert [file.suffix for file in cache.iterdir()] == ['.lock']


@pytest.fixture
def asked(monkeypatch):
    """The addresses that are asked for; none is reached."""
    found = []

    def unreachable(request):
        found.append(request.full_url)
        raise URLError('Name or service not known')

    monkeypatch.setattr('torch.hub.urlopen', unreachable)
    return found


def test_an_unreachable_address_names_url_module_and_options(asked):
    url = 'https://example.org/models/resnet18-f37072fd.pth'
    message = message_of(make_cfg(url))
    for part in ('model.backbone cannot be fetched', url, 'Name or service not known',
                 '--cfg-options model.backbone.init_cfg.checkpoint=FILE',
                 '--cfg-options model.backbone.init_cfg=None'):
        assert part in message


def test_mmdetections_short_names_are_known(asked):
    message_of(make_cfg('torchvision://resnet18'))
    assert asked == ['https://download.pytorch.org/models/resnet18-f37072fd.pth']
    assert "Did you mean 'resnet18'?" in message_of(make_cfg('torchvision://resnet-18'))


@pytest.mark.parametrize('base', sorted(path.stem for path in MODEL_BASES.glob('centernet_*.py')
                                        if 'hourglass' not in path.stem))
def test_the_options_that_messages_name_work(base, published, monkeypatch):
    def option(text):
        key, _, value = text.partition('=')
        cfg = Config.fromfile(MODEL_BASES / f'{base}.py')
        assert cfg.model.backbone.init_cfg.checkpoint.startswith('https://')
        cfg.merge_from_dict({key: DictAction._parse_iterable(value)})
        return cfg

    cfg = option(f'model.backbone.init_cfg.checkpoint={published}')
    assert cfg.model.backbone.init_cfg.checkpoint == str(published)
    scratch = option('model.backbone.init_cfg=None')
    monkeypatch.setattr('torch.hub.urlopen', None)  # nothing is downloaded
    fetch_initial_weights(scratch)
    MODELS.build(scratch.model.backbone).init_weights()


def test_a_missing_file_is_named(tmp_path):
    message = message_of(make_cfg(tmp_path / 'absent.pth'))
    assert 'absent.pth' in message and 'model.backbone.init_cfg.checkpoint=FILE' in message


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / 'ran',))

    torch.save({'state_dict': Harmful()}, tmp_path / 'harmful.pth')
    assert 'harmful.pth' in message_of(make_cfg(tmp_path / 'harmful.pth'))
    assert not (tmp_path / 'ran').exists()


def test_weights_of_another_architecture_are_refused(published):
    message = message_of(make_cfg(published, dict(BACKBONE, depth=50)))
    assert 'model.backbone (ResNet)' in message and published.name in message


def test_a_prefix_is_needed_where_names_have_one(tmp_path):
    weights = MODELS.build(BACKBONE).state_dict()
    file = tmp_path / 'classifier.pth'
    torch.save(dict(meta={}, state_dict={
        **{f'backbone.{name}': value for name, value in weights.items()},
        'head.fc.weight': torch.zeros(3, 3)}), file)
    fetch_initial_weights(make_cfg(file, prefix='backbone'))
    fetch_initial_weights(make_cfg(file, prefix='backbone.'))
    message = message_of(make_cfg(file))
    assert "first is 'conv1.weight' while theirs is 'backbone.conv1.weight'" in message


def test_every_pretrained_module_is_found(published):
    cfg = make_cfg(published)
    backbone = cfg.model.backbone
    backbone.init_cfg = [ConfigDict(type='Constant', layer='Conv2d', val=0.0), backbone.init_cfg]
    cfg.model.neck = ConfigDict(BACKBONE, init_cfg=dict(
        type='Pretrained', checkpoint=published.as_uri()))
    fetch_initial_weights(cfg)
    assert cfg.model.neck.init_cfg.checkpoint.endswith(f'checkpoints/{published.name}')
    backbone.init_cfg[1].checkpoint = 'absent.pth'
    assert '--cfg-options model.backbone.init_cfg.1.checkpoint=FILE' in message_of(cfg)


@pytest.mark.dist
def test_processes_that_start_together_download_once(published):
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=published.parent)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        url = f'http://127.0.0.1:{server.server_port}/{published.name}'
        processes = [torch.multiprocessing.get_context('fork').Process(
            target=fetch_initial_weights, args=(make_cfg(url), )) for _ in range(2)]
        for process in processes:
            process.start()
        processes[1].join(1)  # both are there before the server answers
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for process in processes:
            process.join()
        server.shutdown()
    assert [process.exitcode for process in processes] == [0, 0]
    assert requests == [f'/{published.name}']
