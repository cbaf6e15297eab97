"""How tools end."""

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


@pytest.mark.parametrize(('error', 'hint', 'status', 'told'), [
    (UserError('the sky is green: look again'), '', 1, 'error: the sky is green: look again\n'),
    (KeyboardInterrupt, 'continue with --resume', 130, 'interrupted; continue with --resume\n'),
    (KeyboardInterrupt, '', 130, 'interrupted\n')])
def test_user_errors_and_interrupts_are_one_line_and_a_status(error, hint, status, told, capsys):
    with pytest.raises(SystemExit) as end, user_errors(hint):
        raise error
    assert end.value.code == status
    assert capsys.readouterr() == ('', told)


def test_error_of_a_data_loader_worker_is_reduced_to_its_sentence():
    with pytest.raises(UserError) as raised:
        next(iter(DataLoader(Broken(), num_workers=1)))
    # PyTorch makes a traceback of it.
    assert str(raised.value) == "image 'a/0.jpg' does not decode: replace it"


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


@pytest.mark.parametrize('error', [
    KeyError('a bug'), BrokenPipeError('of a data worker'),
    ImportError("No module named 'mmkd.nothing'"), ImportError("No module named 'json.nothing'"),
    ImportError("cannot import name 'a' from 'b'")], ids=str)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error), match=error.args[0]), user_errors():
        raise error


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


def run(code):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_a_worker_of_torchrun_ends_before_python_is_taken_apart(monkeypatch):
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    assert run(FRAGILE).returncode == -signal.SIGABRT
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    done = run(FRAGILE)
    assert (done.returncode, done.stdout) == (0, 'finished\nhandlers run\n')
    done = run("from mmkd.engine.cli import user_errors\nfrom mmkd.errors import UserError\n"
               "with user_errors():\n    raise UserError('no')")
    assert (done.returncode, done.stderr) == (1, 'error: no\n'), 'one that fails says so'
