"""Steps of distilling a classifier: mmkd against a loop in the style of the public code bases.

ResNet-32x4 -> ResNet-8x4, batches of 64 images of 32x32 pixels, without a teacher, with KD and with
CRD. The loop is written here as those code bases write theirs: networks as they are, the teacher in
evaluation mode under ``no_grad``, CRD with a copy of every memory row that takes part (50 000
samples, 16 384 negatives). It is given normalised batches, and CRD's negatives drawn before.

mmkd's step is that of a runner with all of its hooks, from bytes: crop, flip, normalise, and for
CRD the drawing; with the student as it is and in channels_last, and KD with the teacher in bf16 or,
where there is a compiler, compiled.

Rows with the baseline ``KD`` set mmkd's CRD beside mmkd's KD. ``student and teacher by hand`` is a
plain loop with mmkd's own student, its data preprocessor, and mmkd's own fast teacher in between:
what mmkd's KD takes above it is the framework, KD's loss included. ``data``: what makes a batch of
images, with PIL one by one and with BatchPreprocessor; and CRD's negatives without replacement,
image by image, as the public loop's data set draws them, beside mmkd's.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from harness import Options, Result, compare
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from PIL import Image, ImageOps
from runs import CLASSES, classifier, classifier_run, has_compiler, started
from torch import Tensor, nn

from mmkd.classification.classifier import Classifier
from mmkd.classification.data import ClassificationSample
from mmkd.distillation import DistillationHook
from mmkd.distillation.losses import CRDLoss
from mmkd.distillation.teachers import build_model
from mmkd.engine.config import load_config

METHODS = Path(__file__).parents[2] / 'configs/classification/methods'
PART = 'classification'


class Setup:
    """Sizes, batches and weights that the loop and mmkd share."""

    def __init__(self, options: Options, folder: str) -> None:
        quick = options.quick
        self.options, self.folder = options, folder
        self.teacher, self.student = ('resnet14', 'resnet8') if quick else ('resnet32x4',
                                                                            'resnet8x4')
        self.batch_size, self.images = (8, 200) if quick else (64, 50_000)
        self.negatives = 32 if quick else 16_384
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.checkpoint = f'{folder}/teacher.pth'
        torch.manual_seed(0)
        torch.save(self.network(self.teacher).state_dict(), self.checkpoint)
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(0, 256, (self.batch_size, 3, 32, 32), dtype=torch.uint8,
                                    generator=generator)
        self.indices = torch.randperm(self.images, generator=generator)[:self.batch_size]
        self.labels = self.indices % CLASSES

    def network(self, name: str) -> Classifier:
        """Return a network with the loop's memory format."""
        return build_model(Config(dict(model=classifier(name)))).to(self.device)

    def batch(self) -> dict:
        """Return the batch as mmkd's loader gives it."""
        return dict(inputs=self.pixels, data_samples=ClassificationSample(
            labels=self.labels.clone(), indices=self.indices.clone()))

    def mmkd_step(self, method: str, **options: object) -> Callable[[], object]:
        """Return a step of a runner."""
        loop = self.runner(method, **options).train_loop
        return lambda: loop.run_iter(self.batch())

    def runner(self, method: str, teacher: dict | None = None, **entries: object) -> Runner:
        """Return the runner of a method; ``teacher``: options of its teacher."""
        config = load_config(METHODS / f'{method}.py')
        hooks = config.get('custom_hooks', [])
        for term in config.get('terms', {}).values():
            if term.loss.type == 'CRDLoss':
                term.loss.num_negatives = self.negatives
        if 'terms' in config:
            entries['terms'] = config.terms
            entries['teachers'] = dict(teacher=dict(model=classifier(self.teacher),
                                                    checkpoint=self.checkpoint,
                                                    **(teacher or {})))
        cfg = classifier_run(self.folder, classifier(self.student) | config.get('model', {}),
                             self.batch_size, self.images, custom_hooks=hooks, **entries)
        return started(cfg)


def measure(options: Options) -> Iterable[Result]:
    """Time the methods' steps, CRD beside KD, and the data."""
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(options, folder)
        steps = {}
        for method in ('ce', 'kd', 'crd'):
            steps[method] = setup.mmkd_step(method, channels_last=True)
            yield from compare(PART, {
                'public loop': loop_step(setup, method),
                f'{method.upper()}, mmkd': setup.mmkd_step(method),
                f'{method.upper()}, mmkd, channels_last': steps[method],
            } | (faster_teachers(setup) if method == 'kd' else {}), 'public loop', options)
        yield from compare(PART, {
            'KD': steps['kd'], 'CRD, mmkd, channels_last': steps['crd']}, 'KD', options)
        runner = setup.runner('kd')
        yield from compare(PART, {
            'student and teacher by hand': by_hand(setup, runner),
            'KD, mmkd, against its own parts': lambda: runner.train_loop.run_iter(setup.batch()),
        }, 'student and teacher by hand', options)
        yield from data_rows(setup)


def faster_teachers(setup: Setup) -> dict[str, Callable[[], object]]:
    """Return steps of KD in channels_last with the options that a teacher has."""
    teachers = {'bf16 teacher': dict(precision='bf16')}
    if has_compiler() and not setup.options.quick:
        teachers['compiled teacher'] = dict(compile=True)
    return {f'KD, mmkd, channels_last, {name}': setup.mmkd_step(
        'kd', teacher=options, channels_last=True) for name, options in teachers.items()}


def by_hand(setup: Setup, runner: Runner) -> Callable[[], object]:
    """Return a step of another student and the runner's teacher, without the runner."""
    alone = setup.network(setup.student).train()
    optimizer = build_optim_wrapper(alone, runner.cfg.optim_wrapper)
    [hook] = [hook for hook in runner.hooks if isinstance(hook, DistillationHook)]
    [teacher] = hook.teachers

    def step() -> None:
        data = alone.data_preprocessor(setup.batch(), True)
        losses = alone(**data, mode='loss')
        teacher(data['inputs'], data['data_samples'])
        optimizer.update_params(alone.parse_losses(losses)[0])

    return step


def loop_step(setup: Setup, method: str) -> Callable[[], object]:
    """Return a step of the plain loop."""
    student, teacher = setup.network(setup.student).train(), setup.network(setup.teacher).eval()
    contrast = Contrast(setup, student, teacher) if method == 'crd' else None
    modules = nn.ModuleList([student, *([contrast] if contrast else [])])
    optimizer = torch.optim.SGD(modules.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    inputs = ((setup.pixels - 128.0) / 64.0).to(setup.device)
    labels = setup.labels.to(setup.device)

    def step() -> None:
        embedding = student.backbone(inputs)
        logits = student.head(embedding)
        loss = F.cross_entropy(logits, labels)
        if method != 'ce':
            with torch.no_grad():
                teacher_embedding = teacher.backbone(inputs)
                teacher_logits = teacher.head(teacher_embedding)
        if method == 'kd':
            divergence = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(teacher_logits / 4, 1),
                                  reduction='batchmean')
            loss = 0.1 * loss + 0.9 * 16 * divergence
        elif method == 'crd':
            loss = loss + 0.8 * contrast(embedding, teacher_embedding)
        correct = (logits.argmax(1) == labels).float().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item(), correct.item()

    return step


class Contrast(nn.Module):
    """CRD's loss by a copy of every row of the memory that takes part."""

    def __init__(self, setup: Setup, student: Classifier, teacher: Classifier) -> None:
        super().__init__()
        device, dim = setup.device, 128
        self.embed = nn.ModuleList(nn.Linear(network.backbone.out_channels, dim)
                                   for network in (student, teacher)).to(device)
        self.memory = [F.normalize(torch.randn(setup.images, dim, device=device)) for _ in range(2)]
        self.own = setup.indices.to(device)
        negatives = torch.randint(setup.images, (setup.batch_size, setup.negatives), device=device)
        self.pairs = torch.cat([self.own[:, None], negatives], dim=1)
        self.noise = setup.negatives / setup.images

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the sum of both directions."""
        anchors = [F.normalize(layer(feature)) for layer, feature in
                   zip(self.embed, (student, teacher), strict=True)]
        total = student.new_zeros(())
        for anchor, memory in zip(anchors, reversed(self.memory), strict=True):
            rows = memory[self.pairs.flatten()].view(*self.pairs.shape, -1)
            e = torch.bmm(rows, anchor.unsqueeze(2)).squeeze(2).div(0.07).exp()
            e = e / (e.detach().mean() * len(memory))
            h = e / (e + self.noise)
            total = total - (h[:, 0].log().sum() + (1 - h[:, 1:]).log().sum()) / len(anchor)
        with torch.no_grad():
            for anchor, memory in zip(anchors, self.memory, strict=True):
                memory[self.own] = F.normalize(0.5 * memory[self.own] + 0.5 * anchor)
        return total


def data_rows(setup: Setup) -> Iterable[Result]:
    """Time what makes a batch."""
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in setup.pixels]
    generator = np.random.default_rng(0)
    mean, std = torch.full((3, 1, 1), 128 / 255), torch.full((3, 1, 1), 64 / 255)

    def one(image: Image.Image) -> Tensor:
        padded = ImageOps.expand(image, 4)
        left, top = generator.integers(9, size=2)
        image = padded.crop((left, top, left + 32, top + 32))
        if generator.random() < 0.5:
            image = ImageOps.mirror(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().div(255).sub(mean).div(std)

    preprocessor = setup.network(setup.student).data_preprocessor
    yield from compare(PART, {
        'PIL, image by image': lambda: torch.stack([one(image) for image in images]),
        'data, BatchPreprocessor': lambda: preprocessor(setup.batch(), True),
    }, 'PIL, image by image', setup.options)

    labels = torch.arange(setup.images) % CLASSES
    others = [np.flatnonzero(labels.numpy() != label) for label in range(CLASSES)]
    loss = CRDLoss(4, 4, labels, num_negatives=setup.negatives).to(setup.device)
    indices = setup.indices.to(setup.device)
    yield from compare(PART, {
        'negatives image by image, without replacement': lambda: [
            generator.choice(others[label], setup.negatives, replace=False)
            for label in setup.labels.tolist()],
        "data, CRDLoss's negatives": lambda: loss._negatives(indices),
    }, 'negatives image by image, without replacement', setup.options)
