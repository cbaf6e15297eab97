"""Does pretraining without labels help? Tiny ImageNet at 32 px, a tenth of it labelled.

    python tools/prepare_tiny_imagenet.py data     # the images
    python tools/pretraining_table.py              # everything else; call it again to go on

A ResNet-20 learns all labels of the 100 classes and stands for a foundation model. A ResNet-18 then
learns from it on the same images without any label (`mmkd pretrain`), and after that a labelled
tenth, once for each seed; beside it one that begins with random weights and learns the same tenth
for as many epochs. Each seed has a pretraining of its own. What is finished is not done again, and
a training that was killed goes on. As it stands it takes about an hour and a half of one core.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from mmkd.engine.cli import user_errors
from mmkd.evaluation.paired import paired_difference

STUDENT, TEACHER = 'imagenet_resnet18', 'resnet20'
METRIC = 'accuracy/top1'
LABELLED = 5000  # of 50 000


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', default='data', help='has tiny_imagenet100_32px')
    parser.add_argument('--out', default='work_dirs/pretraining', help='where the runs go')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--teacher-epochs', type=int, default=10)
    parser.add_argument('--pretrain-epochs', type=int, default=3)
    parser.add_argument('--epochs', type=int, default=10, help='on the labelled tenth')
    parser.add_argument('--labelled', type=int, default=LABELLED, help='how many images that is')
    return parser


@user_errors(if_interrupted='call it again to go on')
def main() -> None:
    """Train what is missing and print the table."""
    args = arguments().parse_args()
    out = Path(args.out)
    teacher = _classifier(args, out / 'teacher', TEACHER, 0, args.teacher_epochs)
    rows: dict[str, list[float]] = {'scratch': [], 'pretrained': []}
    for seed in args.seeds:
        start = _pretrained(args, out / f'pretrain_seed_{seed}', seed)
        few = f'train_dataloader.dataset.max_samples={args.labelled}'
        rows['scratch'].append(_classifier(
            args, out / f'scratch_seed_{seed}', STUDENT, seed, args.epochs, few))
        rows['pretrained'].append(_classifier(
            args, out / f'pretrained_seed_{seed}', STUDENT, seed, args.epochs, few,
            'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={start}'))
    gain = paired_difference(rows['pretrained'], rows['scratch'])
    print(f'| {STUDENT}, {args.labelled} labels | top-1 | of each seed |\n| --- | --- | --- |')
    for name, values in rows.items():
        print(f'| {name} | {sum(values) / len(values):.2f} | '
              f'{", ".join(f"{value:.2f}" for value in values)} |')
    print(f'\ngain {gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f}); '
          f'the teacher, all labels: {teacher:.2f}')


def _classifier(args: argparse.Namespace, folder: Path, network: str, seed: int, epochs: int,
                *options: str) -> float:
    """Train a classifier, unless that is done, and return its accuracy after the last epoch."""
    found = folder / 'test.json'
    if not found.is_file():
        _call('train', 'classifier', '--data', 'tiny_imagenet100', '--student', network,
              '--data-root', args.data_root, '--work-dir', folder, '--epochs', epochs, '--resume',
              '--amp', '--channels-last', '--cfg-options', f'randomness.seed={seed}', *options)
        _call('test', folder / 'config.py', folder / 'last.pth', '--work-dir', folder,
              '--out', found)
    return json.loads(found.read_text())[METRIC]


def _pretrained(args: argparse.Namespace, folder: Path, seed: int) -> Path:
    """Pretrain, unless that is done, and return the file of the backbone."""
    weights = folder / 'backbone.pth'
    if not weights.is_file():
        teacher = Path(args.out, 'teacher')
        _call('pretrain', STUDENT, '--teacher', f'{teacher}/config.py={teacher}/last.pth',
              '--data', Path(args.data_root, 'tiny_imagenet100_32px', 'train'), '--size', 32,
              '--epochs', args.pretrain_epochs, '--work-dir', folder, '--resume', '--amp',
              '--cfg-options', f'randomness.seed={seed}')
    return weights


def _call(*words: object) -> None:
    subprocess.run([sys.executable, '-m', 'mmkd', *map(str, words)], check=True)


if __name__ == '__main__':
    main()
