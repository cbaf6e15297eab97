"""What is kept from release to release: the first losses of three recipes, and checkpoints.

    python -m tests.kept losses         writes losses.txt anew
    python -m tests.kept checkpoints    writes the folder of this release: configs and checkpoints

`test_kept` compares the first with what is trained now, and goes on from the second, of all
releases. A change of numerics or of the format of checkpoints must be told in CHANGELOG.md.
"""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS / 'detection')]  # for `helpers`, `archives`, `dense_zoo`
