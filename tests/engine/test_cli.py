"""How tools end."""

import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from mmkd.engine.cli import user_errors, user_sentence
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
    assert 'Traceback' in str(raised.value)  # what PyTorch makes of it
    assert user_sentence(raised.value) == "image 'a/0.jpg' does not decode: replace it"


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), user_errors():
        raise KeyError('a bug')


def test_importing_it_is_cheap():
    code = "import sys, mmkd.engine.cli; assert not {'torch', 'mmengine'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)
