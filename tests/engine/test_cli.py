"""How tools end."""

import os
import signal
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from mmkd.engine.cli import user_errors
from mmkd.errors import UserError


class Broken(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        raise UserError(f"image 'a/{i}.jpg' does not decode: replace it")


def test_user_error_is_one_line_and_status_1(capsys):
    with pytest.raises(SystemExit) as end, user_errors():
        raise UserError('the sky is green: look again')
    assert end.value.code == 1
    assert capsys.readouterr() == ('', 'error: the sky is green: look again\n')


def test_error_of_a_data_loader_worker_is_reduced_to_its_sentence():
    with pytest.raises(UserError) as raised:
        next(iter(DataLoader(Broken(), num_workers=1)))
    # PyTorch makes a traceback of it.
    assert str(raised.value) == "image 'a/0.jpg' does not decode: replace it"


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), user_errors():
        raise KeyError('a bug')


@pytest.mark.parametrize('error, package', [
    (ModuleNotFoundError("No module named 'torchvision.ops'"), 'torchvision'),
    # As mmengine's registries raise it anew.
    (ModuleNotFoundError("class `A` in a/b.py: No module named 'cv2'"), 'opencv-python')])
def test_a_package_that_is_missing_is_one_line(error, package, capsys):
    with pytest.raises(SystemExit) as end, user_errors():
        raise error
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith(f"error: the package '{package}' is not installed, which ")
    assert err.endswith(f'test_cli.py needs: pip install {package}\n')


@pytest.mark.parametrize('text', [
    "No module named 'mmkd.nothing'", "No module named 'json.nothing'",
    "cannot import name 'a' from 'b'"])
def test_other_imports_that_fail_keep_their_traceback(text):
    with pytest.raises(ImportError, match=text), user_errors():
        raise ImportError(text)


@pytest.mark.parametrize(('hint', 'told'), [
    ('continue with --resume', 'interrupted; continue with --resume\n'), ('', 'interrupted\n')])
def test_an_interrupted_tool_says_so_with_status_130(hint, told, capsys):
    with pytest.raises(SystemExit) as end, user_errors(hint):
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr() == ('', told)


@pytest.mark.parametrize('lines', [1, 100_000])
def test_where_nobody_reads_on_it_ends_quietly(lines):
    code = ("from mmkd.engine.cli import user_errors\nimport sys\nwith user_errors():\n"
            "    sys.stdin.read()\n    print('line\\n' * int(sys.argv[1]))")
    with subprocess.Popen([sys.executable, '-c', code, str(lines)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b''
        assert process.wait() == 1


def test_another_broken_pipe_keeps_its_traceback():
    with pytest.raises(BrokenPipeError), user_errors():
        raise BrokenPipeError('of a data worker')


def test_importing_it_is_cheap():
    code = "import sys, mmkd.engine.cli; assert not {'torch', 'mmengine'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)


FRAGILE = '''
import atexit, os
from mmkd.engine.cli import user_errors

class Fragile:
    def __del__(self):  # as gloo's threads, when Python is taken apart
        os.abort()

kept = Fragile()
atexit.register(print, 'handlers run')
with user_errors():
    print('finished')
'''


@pytest.mark.parametrize('by_torchrun, status', [(True, 0), (False, -signal.SIGABRT)])
def test_a_worker_of_torchrun_ends_before_python_is_taken_apart(by_torchrun, status):
    environment = {name: value for name, value in os.environ.items()
                   if name != 'TORCHELASTIC_RUN_ID'}
    if by_torchrun:
        environment['TORCHELASTIC_RUN_ID'] = 'none'
    done = subprocess.run([sys.executable, '-c', FRAGILE], env=environment, capture_output=True,
                          text=True)
    assert done.returncode == status
    if by_torchrun:
        assert done.stdout == 'finished\nhandlers run\n'


def test_a_worker_that_fails_says_so():
    code = ("from mmkd.engine.cli import user_errors\nfrom mmkd.errors import UserError\n"
            "with user_errors():\n    raise UserError('no')")
    environment = os.environ | {'TORCHELASTIC_RUN_ID': 'none'}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True,
                          text=True)
    assert (done.returncode, done.stderr) == (1, 'error: no\n')
