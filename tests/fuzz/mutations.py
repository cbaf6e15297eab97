"""Ways to damage bytes, texts and trees; all follow from the random generator that is given."""

import copy
import json

DEEP = '@deep@'
ENCODINGS = ('utf-16', 'utf-32', 'latin-1', 'cp037', 'shift_jis', 'utf-7', 'utf-8-sig')
NUMBERS = ('5', '17', '3.7', '12', 'nan', 'inf', '-inf', '1e999', '-1', '0', '1e308', '9' * 400,
           '0x10', '', '1,5', 'ten', '1e-320', '2147483648', '-9223372036854775809', '٣', 'True')


def values():
    """Return values of every type and size, new ones each time."""
    return [None, True, False, 0, -1, 1, 2**31, 10**30, 1.5, 1e308, -1e308, float('nan'),
            float('inf'), '', 'x', 'x' * 5000, 'a\nb', 'a\x00b', '../' * 9 + 'x', '\x1b[2J', 'é',
            '\ud800', [], {}, [1, 2], [[]], ['a', 'b', 'c', 'd'], dict(a=1), {'': {}}, DEEP,
            [1e308] * 3, [True] * 3, [0, 0, 0], [10**9, 10**9]]


def damaged_bytes(rng, content):
    """Return bytes with one kind of damage."""
    content = bytearray(content)
    size = len(content)
    kind = rng.choice(['flip', 'flip', 'flip', 'cut', 'cut', 'zeros', 'swap', 'insert', 'remove',
                       'repeat', 'random', 'append', 'other'])
    start, end = sorted((rng.randrange(size + 1), rng.randrange(size + 1)))
    if kind == 'flip':
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            content[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == 'cut':
        del content[rng.choice([start, size - 1, size - rng.randrange(1, min(size, 64) + 1)]):]
    elif kind == 'zeros':
        content[start:end] = bytes(end - start)
    elif kind == 'swap':
        length = min(end - start, start, 64)
        content[:length], content[start:start + length] = (content[start:start + length],
                                                           content[:length])
    elif kind == 'insert':
        content[start:start] = rng.randbytes(rng.choice([1, 2, 100]))
    elif kind == 'remove':
        del content[start:start + rng.choice([1, 2, 100])]
    elif kind == 'repeat':
        content[start:start] = content[start:end]
    elif kind == 'random':
        content[start:end] = rng.randbytes(end - start)
    elif kind == 'append':
        content += rng.choice([b'\0', b'\xff' * 100, b'PK\x05\x06' + bytes(18), bytes(content)])
    else:
        content = rng.choice([
            b'', b'\0', b'<html>404</html>', b'import os\n', bytes(size), b'PK\x03\x04' + bytes(64),
            b'\xfd7zXZ\0' + bytes(64), b'\x1f\x8b\x08' + bytes(64), b'BZh9' + bytes(64),
            b'\x89PNG\r\n\x1a\n' + bytes(32) + b'IEND', b'\xff\xd8\xff\xd9', rng.randbytes(512)])
    return bytes(content)


def damaged_text(rng, text):
    """Return the bytes of a text of lines with one kind of damage."""
    kind = rng.choice(['bytes', 'encoding', 'number', 'number', 'number', 'long', 'line', 'line',
                       'sign', 'deep'])
    if kind == 'bytes':
        return damaged_bytes(rng, text.encode())
    if kind == 'encoding':
        return text.encode(rng.choice(ENCODINGS), 'replace')
    place = rng.randrange(len(text) + 1)
    lines = text.split('\n')
    line = rng.randrange(len(lines))
    if kind == 'number':
        digits = [i for i, sign in enumerate(text) if sign.isdigit()] or [place]
        start = rng.choice(digits)
        end = start
        while end < len(text) and (text[end].isdigit() or text[end] == '.'):
            end += 1
        text = text[:start] + rng.choice(NUMBERS) + text[end:]
    elif kind == 'long':
        text = text[:place] + rng.choice(['x', '9', ' ', '/', '\t']) * 5000 + text[place:]
    elif kind == 'line':
        what = rng.choice(['drop', 'double', 'swap', 'all'])
        if what == 'drop':
            del lines[line]
        elif what == 'double':
            lines.insert(line, lines[line])
        elif what == 'swap':
            other = rng.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
        else:
            lines = lines[line:line + 1] * 200
        text = '\n'.join(lines)
    elif kind == 'sign':
        sign = rng.choice([*'\0\r\n\t"\'{[<&:%$\\\ufeff\u2028'])
        text = text[:place] + sign + text[place:]
    else:
        text = text[:place] + rng.choice(['[', '{', '<a>', '(', '- ']) * 3000 + text[place:]
    return text.encode('utf-8', 'surrogatepass')


def damaged_tree(rng, tree, more=()):
    """Return a copy of dictionaries and lists with one place of it changed.

    Args:
        more: further values that a place may get.
    """
    tree = copy.deepcopy(tree)
    node = rng.choice(list(_nodes(tree)))
    key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
    kind = rng.choice(['value', 'value', 'value', 'value', 'drop', 'rename', 'double'])
    if kind == 'value':
        node[key] = rng.choice([*values(), *more])
    elif kind == 'drop':
        del node[key]
    elif kind == 'rename' and isinstance(node, dict):
        node[rng.choice(['', 'x', 'x' * 5000, 'a\nb', f'{key}x', f'module.{key}'])] = node.pop(key)
    elif isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    return tree


def as_json(tree):
    """Return a damaged tree as JSON, deep where it says so."""
    return json.dumps(tree, default=str).replace(f'"{DEEP}"', '[' * 100_000 + ']' * 100_000)


def _nodes(tree):
    if isinstance(tree, dict | list) and tree:
        yield tree
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _nodes(value)
