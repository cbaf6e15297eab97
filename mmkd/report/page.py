"""The page: every panel of some runs, in a template."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
from mmengine.registry import DefaultScope

from mmkd import __version__
from mmkd.errors import UserError
from mmkd.files import require_writable, written_atomically
from mmkd.report import classifier, curves, detector, overview
from mmkd.report.panels import Panel, panel
from mmkd.report.runs import Run, read_runs

__all__ = ['write_report']

TEMPLATE = Path(__file__).with_name('report.html.jinja')
Fill = Callable[[Sequence[Run], Panel], None]

FROM_RESULTS: dict[str, tuple[str, Fill]] = {
    'losses': ('Losses and terms', curves.losses),
    'learning-rate': ('Learning rate', curves.learning_rate),
    'validation': ('Validation', curves.validation)}
OF_DETECTORS: dict[str, tuple[str, Fill]] = {
    'quality': ('Precision, recall and confusion', detector.quality),
    'pictures': ('What is found', detector.pictures),
    'heatmaps': ('Scores of the cells', detector.heatmaps)}
OF_CLASSIFIERS: dict[str, tuple[str, Fill]] = {
    'quality': ('Confusion', classifier.quality),
    'embeddings': ('Embeddings', classifier.embeddings)}
AT_LAST: dict[str, tuple[str, Fill]] = {
    'models': ('Teacher and student', overview.models),
    'check': ('Before the first epoch', overview.before_training)}


def write_report(folders: Sequence[str | Path], out: str | Path,
                 say: Callable[[str], None] = lambda text: None) -> None:
    """Write one page on some runs.

    Args:
        folders: their work directories.
        out: the HTML file.
        say: told what is being made.

    Raises:
        UserError: a folder is none of a training, the runs are of classifiers and of detectors, or
            the page cannot be written. What is missing of a run is a sentence in the page.
    """
    runs = read_runs(folders)
    kinds = {run.is_classifier for run in runs}
    if len(kinds) > 1:
        raise UserError('some of these runs trained classifiers and some detectors: make a report '
                        'of each kind')
    require_writable(Path(out))
    parts = FROM_RESULTS | (OF_CLASSIFIERS if kinds == {True} else OF_DETECTORS) | AT_LAST
    made = {}
    for key, (title, fill) in parts.items():
        say(title)
        with DefaultScope.overwrite_default_scope(runs[0].cfg.get('default_scope', 'mmkd')):
            made[key] = panel(key, title, lambda part, fill=fill: fill(runs, part))
    # The table comes first and is made last: other panels measure for it.
    order = ['models', *(key for key in made if key != 'models')]
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined,
                                  trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding='utf-8'))
    text = template.render(runs=[(run.name, overview.headline(run)) for run in runs],
                           panels=[made[key] for key in order], version=__version__)
    with written_atomically(Path(out)) as temporary:
        temporary.write_text(text, encoding='utf-8')
