"""List every tensor of a config's model that can be tapped, with its shape and stride.

    mmkd taps configs/centernet_mt_r18.py
    mmkd taps configs/centernet/centernet_hourglass104_voc.py --depth 2
"""

import argparse

from mmkd.engine.arguments import add_choices
from mmkd.engine.cli import user_errors


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a config with a model')
    add_choices(parser, teaches=False)
    parser.add_argument('--size', type=int, default=512, help='side of the input in pixels')
    parser.add_argument('--depth', type=int, help='list names of at most this many parts')
    return parser


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Build the model and print one line per module."""
    args = arguments(prog).parse_args(argv)
    import torch

    from mmkd.distillation import build_model, list_taps
    from mmkd.engine.choices import chosen_config

    model = build_model(chosen_config(args))
    rows = list_taps(model, torch.zeros(1, 3, args.size, args.size))
    rows = [row for row in rows if args.depth is None or row.name.count('.') < args.depth]
    width = max(len(leaf.name) for row in rows for leaf in row.leaves)
    print(f'{"tap":<{width}}  {"module":<20} output of a {args.size}x{args.size} image (stride)')
    for row in rows:
        kind = row.kind if row.calls == 1 else f'{row.kind} x{row.calls}'
        for leaf in row.leaves:
            # Layers of a transformer lie before the batch, all else behind it.
            shape = 'x'.join(map(str, leaf.shape[1:] if leaf.shape[:1] == (1, ) else leaf.shape))
            stride = '' if leaf.stride is None else f' ({leaf.stride:g})'
            print(f'{leaf.name:<{width}}  {kind:<20} {shape}{stride}')
