"""The table of detectors in the docs, which the matrix test fills cell by cell."""

from pathlib import Path

from zoo import CONFIGS

COLUMNS = ('detector', 'learns from a RetinaNet', 'teaches a RetinaNet', 'among its own kind',
           'predicts')
BEGIN, END = '<!-- written by tests/detection/test_every_detector.py -->', '<!-- end -->'


def record(path, name, column, text):
    """Write one cell; all others stay as an earlier run left them."""
    path = Path(path)
    words = path.read_text() if path.is_file() else f'{BEGIN}\n{END}\n'
    before, _, rest = words.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = _read(table)
    rows.setdefault(name, {})[column] = text
    lines = [COLUMNS, ['---'] * len(COLUMNS),
             *([one, *(rows[one].get(column, '') for column in COLUMNS[1:])]
               for one in CONFIGS if one in rows)]
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    path.write_text(f'{before}{BEGIN}\n{table}\n{END}{after}')


def _read(table):
    """What stands in each row, by its name and the column."""
    head, _, *lines = [[cell.strip() for cell in line.strip('|').split('|')]
                       for line in table.strip().splitlines()] or [(), ()]
    return {cells[0]: dict(zip(head[1:], cells[1:], strict=True)) for cells in lines}
