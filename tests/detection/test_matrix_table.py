"""The table of the docs outlives a run of a few detectors."""

from matrix_table import record


def test_a_partial_run_changes_its_own_cells_alone(tmp_path):
    path = tmp_path / 'docs.md'
    path.write_text('Before.\n\n<!-- written by tests/detection/test_every_detector.py -->\n'
                    '<!-- end -->\n\nAfter.\n')
    record(path, 'FCOS', 'predicts', 'failed')
    record(path, 'FCOS', 'predicts', 'yes')
    record(path, 'FCOS', 'among its own kind', 'bckd, crosskd')
    record(path, 'RetinaNet', 'teaches a RetinaNet', 'features')
    head, rule, *rows, _, blank, after = path.read_text().splitlines()[3:]
    assert rows == ['| RetinaNet |  | features |  |  |', '| FCOS |  |  | bckd, crosskd | yes |']
    assert head.startswith('| detector |') and set(rule) == {'|', ' ', '-'}
    assert path.read_text().startswith('Before.') and (blank, after) == ('', 'After.')
