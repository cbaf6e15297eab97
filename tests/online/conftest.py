"""What the tests of cohorts share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'classification'))  # for `archives`
