# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pickles written by hand, with arrays that numpy itself would not write.

Each name and each function here is the opcodes of one value. All are of protocol 2,
the only one that torch reads under ``weights_only``.
"""

import zipfile

NONE, TRUE, FALSE = b'N', b'\x88', b'\x89'


def name(module, attribute):
    """A class or function."""
    return b'c%b\n%b\n' % (module.encode(), attribute.encode())


def text(value):
    """A text."""
    raw = value.encode('utf-8', 'surrogatepass')
    return b'X' + len(raw).to_bytes(4, 'little') + raw


def number(value):
    """An integer."""
    return b'\x8a\x0a' + value.to_bytes(10, 'little', signed=True)


def group(*values):
    """A tuple."""
    return b'(' + b''.join(values) + b't'


def table(**values):
    """A dict."""
    items = (text(key) + value for key, value in values.items())
    return b'}(' + b''.join(items) + b'u'


def call(function, *values):
    """What a function returns."""
    return function + group(*values) + b'R'


def built(value, *state):
    """A value whose state is set."""
    return value + group(*state) + b'b'


NDARRAY, DTYPE = name('numpy', 'ndarray'), name('numpy', 'dtype')
RECONSTRUCT = name('numpy.core.multiarray', '_reconstruct')
SCALAR = name('numpy.core.multiarray', 'scalar')
HISTORY = name('mmengine.logging.history_buffer', 'HistoryBuffer')
CONFIG = name('mmengine.config.config', 'ConfigDict')
BLANK = call(RECONSTRUCT, NDARRAY, group(number(0)), text('b'))


def dtype_state(order='<', size=-1, fields=NONE):
    """The state that numpy gives to a type."""
    rest = (number(size), number(min(size, 1)), number(0))
    return number(3), text(order), NONE, NONE, fields, *rest


def dtype(code, **state):
    """A type of numpy."""
    return built(call(DTYPE, text(code), FALSE, TRUE), *dtype_state(**state))


def data(raw):
    """Bytes, as protocol 2 has them."""
    encode = name('_codecs', 'encode')
    return call(encode, text(raw.decode('latin1')), text('latin1'))


def array_state(shape, kind, content):
    """The state that numpy gives to an array."""
    return number(1), group(*map(number, shape)), kind, FALSE, content


def array(shape, kind, content):
    """An array of numpy."""
    return built(BLANK, *array_state(shape, kind, content))


def history(**state):
    """A log of MMEngine."""
    numbers = array([1], dtype('f8'), data(bytes(8)))
    log = dict(max_length=number(9), _log_history=numbers, _count_history=numbers)
    return HISTORY + b')\x81' + table(**{**log, **state}) + b'b'


def write(path, value):
    """Write a checkpoint with a value in it.

    Args:
        path: The file.
        value (bytes): Its opcodes.
    """
    content = table(state_dict=b'}', value=value)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', b'\x80\x02' + content + b'.')
        archive.writestr('a/version', '3\n')
        archive.writestr('a/byteorder', 'little')
