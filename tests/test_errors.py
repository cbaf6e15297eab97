"""What a user reads is one line, whatever was quoted in it."""

import pytest

from mmkd.errors import UserError


@pytest.mark.parametrize(('message', 'line'), [
    ("class 'a\nb' is unknown: correct it", "class 'a b' is unknown: correct it"),
    ("'a\r\n\tb\u2028c'\n", "'a b c'"),
    ('\x1b[2Jcleared\x00', '[2Jcleared'),
    ('as it was:  two blanks, é and 猫', 'as it was:  two blanks, é and 猫'),
])
def test_one_line(message, line):
    assert str(UserError(message)) == line


def test_the_sentence_of_a_worker():
    """What a DataLoader makes of an error, once and twice."""
    message = ('Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent '
               'call last):\n  File "a.py", line 1\n'
               'mmkd.errors.UserError: image x is cut: replace it\n')
    assert str(UserError(message)) == 'image x is cut: replace it'
    nested = f'Caught UserError in thread 1.\n{message}'
    assert str(UserError(nested)) == 'image x is cut: replace it'
