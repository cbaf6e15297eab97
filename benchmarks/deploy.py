"""Export networks, check them against PyTorch, and time them, side by side in one process.

    python benchmarks/deploy.py models [--threads 2] [--rounds 20] [--images FOLDER]
    python benchmarks/deploy.py speed [--threads 2] [--rounds 100] [--networks r18 mobilenetv2]

`models` exports every detector of the main job, students and teachers, and three classifiers, and
prints how far boxes and scores differ from PyTorch's at most, and the times. `speed` prints how
much faster onnxruntime is than PyTorch, int8 than float, and which share of the time goes into
turning the network's maps into boxes: a second model is exported without that.

Weights are random, drawn from a seed: nothing here depends on them. Models take turns, two runs
each, of which the second is timed; ratios are of one round, so that what else the machine does
touches both, and given as the median and the quartiles over the rounds.
"""

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mmkd  # noqa: F401
from mmkd.deploy.compare import Entry, Row, Setup, compare, load_entry, parse_entry
from mmkd.deploy.compare.latency import Latency, measure, onnx_call, torch_call
from mmkd.deploy.compare.random_weights import noise_images
from mmkd.deploy.compare.table import machine
from mmkd.deploy.device.runtime import open_session
from mmkd.deploy.export import export_onnx, exportable, model_metadata
from mmkd.deploy.export.folding import fold_batch_norms
from mmkd.deploy.export.onnx_file import to_onnx
from mmkd.deploy.export.quantize import quantize_onnx
from mmkd.deploy.export.verify import find_images
from mmkd.engine.config import load_config

CONFIGS = Path(__file__).parents[1] / 'configs'
DETECTORS = ('r18', 'r34', 'mobilenetv2', 'efficientnetb0', 'r50', 'hourglass104')
CLASSIFIERS = ('DATA=cifar100 STUDENT=resnet8x4', 'DATA=imagenet STUDENT=imagenet_resnet18',
               'DATA=imagenet STUDENT=imagenet_mobilenetv1')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=['models', 'speed'])
    parser.add_argument('--networks', nargs='+', choices=DETECTORS,
                        help='detectors (default: all for models, r18 and mobilenetv2 for speed)')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, help='default: 20 for models, 100 for speed')
    parser.add_argument('--images', nargs='+', default=(),
                        help='images on which exports are checked, besides noise')
    parser.add_argument('--size', type=int, help="side of the detectors' input (default: 512)")
    return parser.parse_args()


def detector(name: str) -> Entry:
    """The config of a network of the main job, with random weights."""
    return Entry(name, str(CONFIGS / f'centernet/centernet_{name}_voc.py'))


def size_options(size: int | None) -> dict[str, Any]:
    """The config's entries that say how large the input of a detector is."""
    return {} if size is None else {'test_dataloader.dataset.pipeline.1.scale': (size, size),
                                    'model.data_preprocessor.pad_size_divisor': size}


def models(args: argparse.Namespace, folder: Path) -> list[Sequence[str]]:
    """Return the table of differences and times of detectors and classifiers."""
    def rows(entries: Sequence[Entry], **options: Any) -> list[Row]:
        return compare(entries, Setup(
            folder, ('torch', 'onnx', 'int8'), threads=args.threads, rounds=args.rounds or 20,
            images=find_images(args.images), options=options))

    found = rows([detector(name) for name in args.networks or DETECTORS],
                 **size_options(args.size))
    config = CONFIGS / 'classification/distill.py'
    found += rows([parse_entry(f'{text.rpartition("=")[2]}={text} {config}')
                   for text in CLASSIFIERS])
    table = [('network', 'input', 'boxes compared', 'largest difference, px', 'in a score',
              'PyTorch, ms', 'ONNX Runtime, ms', 'int8, ms')]
    for row in found:
        agreement = row.agreement
        for backend, reason in row.failures.items():
            print(f'{row.name} fails in {backend}: {reason}')
        table.append((
            row.name, 'x'.join(map(str, row.input_size)), str(agreement.boxes or ''),
            f'{agreement.box_difference:.1e}' if agreement.boxes else '',
            f'{agreement.score_difference:.1e}',
            *(str(row.latency.get(backend, 'fails')) for backend in ('torch', 'onnx', 'int8'))))
    return table


class Maps(nn.Module):
    """A detector up to what its head returns."""

    output_names = ('heatmap', 'size', 'offset')

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the last stack."""
        return tuple(levels[-1] for levels in
                     self.model.bbox_head(self.model.extract_feat(image)))


def without_decoding(model: nn.Module, size: tuple[int, int], path: Path,
                     threads: int) -> Callable[[], object]:
    """Export a detector up to its maps, as it is exported with decoding; return what runs it."""
    maps = Maps(copy.deepcopy(model)).eval()
    fold_batch_norms(maps, torch.zeros(1, 3, *size))
    proto = to_onnx(maps, torch.zeros(2, 3, *size), {0: torch.export.Dim('batch')}, 18)
    path.write_bytes(proto.SerializeToString())
    session = open_session(path, threads)
    image = np.random.default_rng(0).standard_normal((1, 3, *size), np.float32)
    return lambda: session.run(None, {'image': image})


def time_network(args: argparse.Namespace, folder: Path, name: str) -> dict[str, Latency]:
    """Time a detector in PyTorch, in ONNX with and without decoding, and in int8."""
    entry = detector(name)
    model = load_entry(entry, load_config(entry.config, size_options(args.size)))
    size = model_metadata(model).input_size
    export_onnx(model, folder / 'float.onnx', find_images(args.images))
    quantize_onnx(folder / 'float.onnx', folder / 'int8.onnx', noise_images(size))
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return measure(dict(
        torch=torch_call(exportable(model).eval(), image, args.threads),
        onnx=onnx_call(folder / 'float.onnx', args.threads),
        maps=without_decoding(model, size, folder / 'maps.onnx', args.threads),
        int8=onnx_call(folder / 'int8.onnx', args.threads)), args.rounds or 100)


def spread(values: Sequence[float], digits: int) -> str:
    """Format the median and the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return f'{statistics.median(values):.{digits}f} ({low:.{digits}f} ... {high:.{digits}f})'


def speed(args: argparse.Namespace, folder: Path) -> list[Sequence[str]]:
    """Return the table of ratios."""
    table = [('network', 'PyTorch, ms', 'ONNX Runtime, ms', 'int8, ms', 'ONNX Runtime : PyTorch',
              'int8 : float', 'decoding, % of float')]
    for name in args.networks or ('r18', 'mobilenetv2'):
        print(name, flush=True)
        times = time_network(args, folder, name)
        rounds = list(zip(*(times[key].times for key in ('torch', 'onnx', 'maps', 'int8')),
                          strict=True))
        table.append((
            name, *(str(times[key]) for key in ('torch', 'onnx', 'int8')),
            spread([eager / onnx for eager, onnx, _, _ in rounds], 2),
            spread([onnx / int8 for _, onnx, _, int8 in rounds], 2),
            spread([100 * (1 - maps / onnx) for _, onnx, maps, _ in rounds], 1)))
    return table


def main() -> None:
    """Print the table of one part."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = dict(models=models, speed=speed)[args.part](args, Path(folder))
    table.insert(1, ['---'] * len(table[0]))
    for line in table:
        print(f'| {" | ".join(line)} |')
    print(f'\nms: median / 95th percentile; batch 1, {args.threads} threads of {machine()}, torch '
          f'{torch.__version__}')


if __name__ == '__main__':
    main()
