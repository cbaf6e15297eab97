"""docs/methods and the READMEs beside the methods' configs, which tools/method_pages.py writes."""

import re
import runpy
from pathlib import Path

import pytest

from mmkd.errors import UserError

ROOT = Path(__file__).parents[2]
FOLDERS = dict(detectors='configs/_base_/distillation',
               classification='configs/classification/methods',
               selfdistill='configs/selfdistill/methods', online='configs/online/methods')


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(ROOT / 'tools/method_pages.py'))


def test_what_is_committed_is_what_the_tool_writes(tool):
    stale = [str(path) for path, text in tool['pages']().items()
             if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding='utf-8') != text]
    assert not stale, 'run: python tools/method_pages.py'


@pytest.mark.parametrize('page', FOLDERS)
def test_every_method_has_a_section_and_a_line_in_the_tables(page):
    names = sorted(path.stem for path in (ROOT / FOLDERS[page]).glob('*.py'))
    text = (ROOT / f'docs/methods/{page}.md').read_text()
    assert re.findall(r'^## (.*)$', text, re.M) == names
    assert text.count('**When to use it**: ') == len(names)
    for table in (ROOT / 'docs/methods/index.md', ROOT / FOLDERS[page] / 'README.md'):
        assert re.findall(rf'^\| \[`(\w+)`\]\(.*?{page}\.md#', table.read_text(), re.M) == names


def section(page, name):
    text = (ROOT / f'docs/methods/{page}.md').read_text()
    return re.search(rf'^## {name}\n(.*?)(?=^## |\Z)', text, re.M | re.S)[1]


def test_a_section_has_formula_paper_command_and_measured_gain():
    pkd = section('detectors', 'pkd')
    assert '    L = 1 / (2 B C H W) * sum_{bcyx} (N(F^s)_{bcyx} - N(F^t)_{bcyx})^2\n' in pkd
    assert '[arXiv 2207.02039](https://arxiv.org/abs/2207.02039)' in pkd
    assert ' --method pkd\n' in pkd
    assert '| by PKD | AP | 3 | 48.5 | +2.0 (-3.6 to +7.6) |' in pkd
    joint = section('detectors', 'joint')
    assert '| ResNet-18, two teachers | mAP | 3 | 68.9 | +14.8 (+10.8 to +18.9) |' in joint
    assert '| from both | mAP | 5 | 66.2 | +21.7 (+11.4 to +32.1) |' in joint


def test_what_was_not_measured_says_so():
    assert '**Measured**: not measured yet.' in section('classification', 'crd')
    # Of one name, and measured between detectors alone.
    assert '**Measured**: not measured yet.' in section('classification', 'dkd')


@pytest.mark.parametrize(('source', 'title'), [
    ('X. Wan, "Similarity", CS 50(11), [doi 1](https://doi.org/1). As in [2](https://arxiv.org/2)',
     '[Similarity](https://doi.org/1)'),
    ('J. Yim, "A Gift", CVPR 2017, which sums', 'A Gift')])
def test_a_title_has_its_own_link_and_no_later_one(tool, source, title):
    assert tool['_title'](source) == title


def test_a_method_without_a_word_on_when_to_use_it_is_named(tool, tmp_path):
    (tmp_path / 'mine.py').write_text('# mine: a new loss.\nterms = dict()\n')
    with pytest.raises(UserError, match=r'mine\.py.*# When: '):
        tool['_method'](tmp_path / 'mine.py', tool['KINDS'][0])
