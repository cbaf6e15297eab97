"""The published numbers that runs are measured against, and the command that repeats each.

Top-1 (and on ImageNet top-5) accuracy in percent as printed in Ye, Chen, Lai, contrastive
distillation by feature-space embedding (FSECD), Journal of South China University of Technology
51(5), 2023. Its FSECD rows are the instance-level policy: they equal that policy's numbers at
batch size 128 in its table of batch sizes. The teachers' accuracies on CIFAR-100 are those that
Y. Tian, D. Krishnan, P. Isola, Contrastive Representation Distillation, ICLR 2020,
arXiv 1910.10699, print of their networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ['CELLS', 'TEACHERS', 'Cell']

Pair = tuple[str, str]


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        data: ``--data`` of the config ``classifier``.
        teacher: a network's name; None where the student is trained alone (``ce``).
        student: a network's name.
        method: its ``--method``.
        top1: published accuracy in percent, or None.
        top5: likewise.
        batch_size: None for the config's own.
    """

    data: str
    teacher: str | None
    student: str
    method: str
    top1: float | None
    top5: float | None = None
    batch_size: int | None = None

    @property
    def run(self) -> str:
        """Name of the work directory below ``work_dirs/<data>``."""
        batch = self.batch_size and f'batch{self.batch_size}'
        return '_'.join(filter(None, [self.method, self.teacher, self.student, batch]))

    @property
    def command(self) -> str:
        """What to type in a shell."""
        words = ['mmkd train classifier', f'--data {self.data}', f'--student {self.student}',
                 self.teacher and f'--teacher {self.teacher}', f'--method {self.method}']
        if self.batch_size:
            words += [f'--work-dir work_dirs/{self.data}/{self.run}',
                      f'--cfg-options train_dataloader.batch_size={self.batch_size}']
        return ' '.join(filter(None, words))


SAME_FAMILY: tuple[Pair, ...] = (
    ('resnet56', 'resnet20'), ('resnet110', 'resnet32'), ('resnet32x4', 'resnet8x4'),
    ('wrn_40_2', 'wrn_16_2'), ('wrn_40_2', 'wrn_40_1'), ('vgg13', 'vgg8'))
SAME_FAMILY_TOP1 = dict(
    ce=(69.06, 71.14, 72.51, 73.26, 71.98, 70.36),
    kd=(70.66, 73.08, 73.33, 74.92, 73.54, 72.98),
    fitnet=(69.21, 71.06, 73.50, 73.58, 72.24, 71.02),
    at=(70.55, 72.31, 73.44, 74.08, 72.77, 71.43),
    rkd=(69.61, 71.82, 71.90, 73.35, 72.22, 71.48),
    ofd=(70.98, 73.23, 74.95, 75.24, 74.33, 73.95),
    crd=(71.16, 73.48, 75.51, 75.48, 74.14, 73.94),
    dkd=(71.32, 73.77, 75.92, 75.32, 74.14, 74.41),
    fsecd=(71.39, 73.51, 76.57, 75.62, 74.49, 74.11))

OTHER_FAMILY: tuple[Pair, ...] = (
    ('resnet32x4', 'shufflenetv1'), ('wrn_40_2', 'shufflenetv1'), ('vgg13', 'mobilenetv2_half'),
    ('resnet50_cifar', 'mobilenetv2_half'), ('resnet32x4', 'shufflenetv2_1x'))
OTHER_FAMILY_TOP1 = dict(
    ce=(70.50, 70.50, 64.60, 64.60, 71.82),
    kd=(74.07, 74.83, 67.37, 67.35, 74.45),
    fitnet=(73.59, 73.73, 64.14, 63.16, 73.54),
    at=(71.73, 73.32, 59.40, 58.58, 72.73),
    rkd=(72.28, 72.21, 64.52, 64.43, 73.21),
    ofd=(75.98, 75.85, 69.48, 69.04, 76.82),
    crd=(75.11, 76.05, 69.73, 69.11, 75.65),
    dkd=(76.45, 76.67, 69.29, 69.96, 76.70),
    fsecd=(76.01, 76.32, 69.97, 70.06, 76.15))

IMAGENET: tuple[Pair, ...] = (
    ('imagenet_resnet34', 'imagenet_resnet18'), ('imagenet_resnet50', 'imagenet_mobilenetv1'))
IMAGENET_TOP1 = dict(
    ce=(69.75, 68.87), kd=(71.03, 70.50), at=(70.69, 69.56), crd=(71.17, 71.37),
    ofd=(70.81, 71.25), dkd=(71.54, 72.01), fsecd=(71.49, 72.19))
IMAGENET_TOP5 = dict(
    ce=(89.07, 88.76), kd=(90.05, 89.80), at=(90.01, 89.33), crd=(90.13, 90.41),
    ofd=(89.98, 90.34), dkd=(90.43, 90.02), fsecd=(90.44, 90.98))

POLICIES: tuple[Pair, ...] = (('wrn_40_2', 'wrn_40_1'), ('resnet32x4', 'resnet8x4'))
POLICY_TOP1 = {
    128: dict(fsecd_class=(73.37, 75.74), fsecd=(74.49, 76.57)),
    512: dict(fsecd_class=(71.52, 72.94), fsecd=(74.39, 75.58)),
    1024: dict(fsecd_class=(70.33, 71.24), fsecd=(73.26, 74.58))}

TEACHER_TOP1 = dict(
    cifar100=dict(resnet56=72.34, resnet110=74.31, resnet32x4=79.42, wrn_40_2=75.61, vgg13=74.64,
                  resnet50_cifar=79.34),
    imagenet=dict(imagenet_resnet34=None, imagenet_resnet50=None))


def _cells(data: str, pairs: Sequence[Pair], top1: Mapping[str, Sequence[float]],
           top5: Mapping[str, Sequence[float]] | None = None,
           batch_size: int | None = None) -> list[Cell]:
    """One cell for each method and pair; the student alone stands once for all its teachers."""
    cells = [Cell(data, None if method == 'ce' else teacher, student, method, numbers[i],
                  top5[method][i] if top5 else None, batch_size)
             for method, numbers in top1.items() for i, (teacher, student) in enumerate(pairs)]
    return list(dict.fromkeys(cells))


CELLS: dict[str, list[Cell]] = {
    'CIFAR-100, one family of networks': _cells('cifar100', SAME_FAMILY, SAME_FAMILY_TOP1),
    'CIFAR-100, different families': _cells('cifar100', OTHER_FAMILY, OTHER_FAMILY_TOP1),
    'ImageNet (top-1 / top-5)': _cells('imagenet', IMAGENET, IMAGENET_TOP1, IMAGENET_TOP5),
    'CIFAR-100, policies and batch sizes': [
        cell for size, top1 in POLICY_TOP1.items()
        for cell in _cells('cifar100', POLICIES, top1, batch_size=size)],
}
"""By the name of the table."""

TEACHERS: list[Cell] = [Cell(data, None, name, 'ce', top1)
                        for data, names in TEACHER_TOP1.items() for name, top1 in names.items()]
"""The networks that the cells learn from; where a published number is not at hand, top1 is None."""
