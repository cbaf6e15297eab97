"""Run an exported model on images, folders of images and videos; without PyTorch.

    mmkd predict student.onnx photo.jpg data/photos clip.mp4 --out-dir drawn
    mmkd predict student.onnx data/photos --json found.json --score-thr 0.5

The JSON file holds `model`, `task`, `classes`, `results`, one entry for each image and each frame
of a video (`file`; `frame`, counted from 0, null for an image; `scores`; `labels`; `names`; for a
detector `boxes`, x1, y1, x2, y2 in pixels of the image), and `skipped` (`file` and `reason`).
Without --json and --out-dir the results are printed. The exit status is 1 if a file was skipped.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from mmkd.deploy.device.drawing import PictureWriter, draw
from mmkd.deploy.device.runtime import Classification, Classifier, Detections, Detector, open_model
from mmkd.deploy.device.sources import Frame, Sources
from mmkd.engine.cli import user_errors
from mmkd.errors import UserError
from mmkd.files import require_writable, written_atomically
from mmkd.undrawn import DRAWN_FROM, undrawn_sentence


def positive(text: str) -> int:
    """Read a number of at least 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='an .onnx file of mmkd export or mmkd quantize')
    parser.add_argument('files', nargs='+', metavar='file',
                        help='image or video files, or folders of them (not searched deeper)')
    parser.add_argument('--out-dir', help='write the pictures and videos with what was found drawn '
                                          'in there')
    parser.add_argument('--json', metavar='FILE', help='write the results there')
    parser.add_argument('--score-thr', type=float,
                        help='detectors: leave out objects below this score '
                             f'(default: {DRAWN_FROM})')
    parser.add_argument('--topk', type=positive,
                        help='classifiers: how many classes to report (default: 5)')
    parser.add_argument('--threads', type=positive,
                        help="CPU threads (default: onnxruntime's own choice)")
    parser.add_argument('--input-size', type=positive, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='bring images to this size, for models of dynamic size')
    return parser


def model_options(args: argparse.Namespace, model: Detector | Classifier) -> dict[str, Any]:
    """What the model is called with beside the images."""
    detector = isinstance(model, Detector)
    name, other = ('score_thr', 'topk') if detector else ('topk', 'score_thr')
    if getattr(args, other) is not None:
        raise UserError(f"--{other.replace('_', '-')} was given, but '{args.model}' is for "
                        f"{model.task}: use --{name.replace('_', '-')}")
    if not detector:
        return dict(topk=5 if args.topk is None else args.topk)
    return dict(score_thr=DRAWN_FROM if args.score_thr is None else args.score_thr)


class Progress:
    """Says on stderr how far it is: in place on a terminal, else a line every half minute."""

    def __init__(self, sources: Sources) -> None:
        self._numbers = {file: number for number, file in enumerate(sources.files, 1)}
        self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._pictures = 0

    def show(self, frame: Frame) -> None:
        """Count a picture."""
        self._pictures += 1
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else 30):
            return
        self._last = now
        text = (f'file {self._numbers[frame.path]} of {len(self._numbers)}, '
                f'{self._pictures} pictures done')
        print(f'\r{text} ' if self._terminal else text, end='' if self._terminal else '\n',
              file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._terminal:
            print('\r' + ' ' * 60 + '\r', end='', file=sys.stderr, flush=True)


def predictions(model: Detector | Classifier, sources: Sources, options: dict[str, Any]
                ) -> Iterator[tuple[Frame, Detections | Classification]]:
    """Run the model on all sources, as many pictures at once as it likes."""
    frames = iter(sources)
    while batch := list(islice(frames, model.batch_size)):
        try:
            yield from zip(batch, model([frame.image for frame in batch], **options), strict=True)
        except UserError:
            yield from one_by_one(model, batch, sources, options)


def one_by_one(model: Detector | Classifier, batch: list[Frame], sources: Sources,
               options: dict[str, Any]) -> Iterator[tuple[Frame, Detections | Classification]]:
    """Run the model on single pictures and skip those that it does not take."""
    for frame in batch:
        try:
            found = model(frame.image, **options)
        except UserError as error:
            sources.skipped[frame.path] = f"'{frame.path}': {error}"
        else:
            yield frame, found


def entry(frame: Frame, found: Detections | Classification,
          classes: tuple[str, ...]) -> dict[str, Any]:
    """One result as it goes into the JSON file."""
    result: dict[str, Any] = dict(file=str(frame.path), frame=frame.index)
    if isinstance(found, Detections):
        result['boxes'] = found.boxes.astype(float).round(3).tolist()
    result['scores'] = found.scores.astype(float).round(6).tolist()
    result['labels'] = found.labels.tolist()
    result['names'] = [classes[label] for label in found.labels]
    return result


def sentence(result: dict[str, Any]) -> str:
    """One result as it is printed."""
    where = result['file'] + ('' if result['frame'] is None else f" frame {result['frame']}")
    if 'boxes' in result:
        parts = [f'{count} {name}' for name, count in Counter(result['names']).items()]
    else:
        parts = [f'{name} {score:.2f}'
                 for name, score in zip(result['names'], result['scores'], strict=True)]
    return f"{where}: {', '.join(parts) or 'nothing'}"


def write_json(args: argparse.Namespace, model: Detector | Classifier,
               results: list[dict[str, Any]], skipped: dict[Path, str]) -> None:
    """Write the results, whole or not at all."""
    content = dict(model=args.model, task=model.task, classes=model.classes, results=results,
                   skipped=[dict(file=str(file), reason=reason)
                            for file, reason in skipped.items()])
    with written_atomically(Path(args.json)) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding='utf-8')


@user_errors()
def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Load, predict, write, report."""
    args = arguments(prog).parse_args(argv)
    # What FFmpeg says about damaged videos is said in one line each.
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    size = None if args.input_size is None else tuple(args.input_size)
    model = open_model(args.model, args.threads, size)
    options = model_options(args, model)
    threshold = options.pop('score_thr', None)  # applied below: the best score is told
    sources = Sources(args.files)
    if args.json:
        require_writable(Path(args.json))
    progress, results, best_scores = Progress(sources), [], []
    with ExitStack() as stack:
        stack.callback(progress.end)
        writer = (stack.enter_context(PictureWriter(args.out_dir, sources.files))
                  if args.out_dir else None)
        for frame, found in predictions(model, sources, options):
            if isinstance(found, Detections):
                best_scores.append(float(found.scores.max(initial=0)))
                found = found.above(threshold)
            results.append(entry(frame, found, model.classes))
            if writer is not None:
                writer.write(frame, draw(frame.image, found, model.classes))
            if writer is None and not args.json:
                print(sentence(results[-1]))
            else:
                progress.show(frame)
    # Files are read ahead of the model, which may refuse pictures, too.
    skipped = {file: sources.skipped[file] for file in sources.files if file in sources.skipped}
    if args.json:
        write_json(args, model, results, skipped)
    if args.out_dir and (undrawn := undrawn_sentence(best_scores, threshold or 0)):
        print(undrawn, file=sys.stderr)
    for reason in skipped.values():
        print(f'skipped: {reason}', file=sys.stderr)
    where = ' and '.join(filter(None, (args.out_dir, args.json)))
    print(f'{len(results)} pictures from {len(sources.files)} files'
          f"{f', written to {where}' if where else ''}", file=sys.stderr)
    if skipped:
        raise UserError(f'{len(skipped)} of {len(sources.files)} files were skipped, as named '
                        'above')
