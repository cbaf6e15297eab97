"""torchrun, that says first which process of a run died, and how to go on.

torchrun's own table follows. dist_train.sh and dist_test.sh start this.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    """Start the processes as torchrun does."""
    try:
        run.main()
    except ChildFailedError as error:
        print(f'error: {who_died(error)}', file=sys.stderr, flush=True)
        raise


def who_died(error: ChildFailedError) -> str:
    """Return a sentence on the process that ended the run.

    One that was killed counts before those that fail since they miss it.
    """
    killed = [(rank, one) for rank, one in error.failures.items() if one.exitcode < 0]
    rank, failure = killed[0] if killed else error.get_first_failure()
    how = (f'was ended by {failure.signal_name()}' if killed else
           f'failed with status {failure.exitcode} and said above why')
    if killed and failure.signal_name() == 'SIGKILL':
        how += ' (if nobody did that, memory ran out)'
    return (f'process {rank} {how}, so the others were stopped: a training goes on from its last '
            'checkpoint by the same command with --resume')


if __name__ == '__main__':
    main()
