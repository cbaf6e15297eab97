"""Commands are given in this process."""

import pytest

from mmkd.commands import main


@pytest.fixture
def given(capsys):
    """Give a command, by its line or its words; return its status and what it printed."""
    def give(command):
        capsys.readouterr()
        status = 0
        try:
            main(command.split() if isinstance(command, str) else command)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()
    return give
