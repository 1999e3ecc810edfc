# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""numpy's arrays and MMEngine's logs are read, and no memory that is not theirs."""

import collections
import ctypes
import pickle
from io import BytesIO

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmfakd.compat import checkpoints, load_checkpoint_file
from mmfakd.compat.checkpoint_array import CheckpointArray
from mmfakd.compat.restricted_pickle import RestrictedPickle
from mmfakd.version import parse_version
from tests.helpers import forked, opcodes
from tests.helpers.opcodes import (
    BLANK,
    CONFIG,
    DTYPE,
    FALSE,
    HISTORY,
    NDARRAY,
    NONE,
    RECONSTRUCT,
    SCALAR,
    TRUE,
    array,
    array_state,
    built,
    call,
    data,
    dtype,
    dtype_state,
    group,
    history,
    name,
    number,
    table,
    text,
)

weights_only_torch = pytest.mark.skipif(
    parse_version(torch.__version__) < (2, 6),
    reason='before torch 2.6 it is not told of further names',
)
# What is read by mistake here is this.
_SECRET = ctypes.create_string_buffer(b'secret!!')
INTERFACE = table(
    data=group(number(ctypes.addressof(_SECRET)), FALSE),
    shape=group(number(1)),
    typestr=text('|S8'),
    version=number(3),
)
EIGHT = data(bytes(8))
F8 = dtype('f8')
BYTEARRAY = name('__builtin__', 'bytearray')
ADDRESSED = (
    call(name('collections', 'OrderedDict'))
    + table(__array_interface__=INTERFACE)
    + b'b'
)
TAGGED = call(CONFIG, table(__array_interface__=INTERFACE))
# The second time the value comes from the memo.
KEPT, AGAIN = b'q\x07', b'h\x07'


def first(value, *others):
    """A list of a value that is kept, and others that use it."""
    return b'](' + value + KEPT + b''.join(others) + b'e'


NUMPY = {
    'called': (
        call(NDARRAY, group(number(1)), text('O'), call(BYTEARRAY, EIGHT)),
        'numpy.ndarray is called',
    ),
    'made': (NDARRAY + group(group(number(1)), text('O')) + b'\x81', 'is called'),
    'other class': (
        call(RECONSTRUCT, DTYPE, group(number(0)), text('b')),
        'another class than numpy.ndarray',
    ),
    'type of objects': (dtype('O8'), r"numpy.dtype\('O8'\) is neither"),
    'type of memory': (dtype('V8'), r"numpy.dtype\('V8'\) is neither"),
    'type of dates': (dtype('M8[ns]'), r"\('M8\[ns\]'\) is neither"),
    'type of several': (dtype('f8,O'), r"\('f8,O'\) is neither"),
    'type of a list': (call(DTYPE, b']', FALSE, TRUE), r'dtype\(list\) is neither'),
    'type without a code': (DTYPE + b')\x81', r'dtype\(NoneType\) is neither'),
    'type of a huge text': (dtype('U' + '9' * 30), 'is neither'),
    'another size': (dtype('S8', size=400), r"\('S8'\) has the state of another"),
    'fields': (dtype('f8', fields=b'}'), r"\('f8'\) has the state of another"),
    'no order': (dtype('f8', order=''), r"\('f8'\) has the state of another"),
    'short state': (built(call(DTYPE, text('f8')), number(3)), 'not as numpy writes'),
    'type that changes': (
        first(
            dtype('S8', order='|', size=8),
            array([2], AGAIN, data(bytes(16))),
            built(AGAIN, *dtype_state('|', 400)),
        ),
        'state of a numpy.dtype is set twice',
    ),
    'array that changes': (
        first(
            array([1], F8, EIGHT),
            built(AGAIN, *array_state([1], F8, EIGHT)),
        ),
        'state of a numpy.ndarray is set twice',
    ),
    'list for bytes': (array([1], F8, b']K\x01a'), 'are a list, not bytes'),
    'bytearray': (array([1], F8, call(BYTEARRAY, EIGHT)), 'are a bytearray, not bytes'),
    'few bytes': (array([2], F8, EIGHT), '2 numpy values of 8 bytes have 8 bytes'),
    'many bytes': (array([], F8, data(bytes(9))), '1 numpy values of 8 bytes have 9'),
    'negative length': (array([-1], F8, EIGHT), 'is no tuple of lengths'),
    'shape of a list': (
        built(BLANK, number(1), b']', F8, FALSE, EIGHT),
        'is no tuple of lengths',
    ),
    'shape of truths': (
        built(BLANK, number(1), group(TRUE), F8, FALSE, EIGHT),
        'is no tuple of lengths',
    ),
    'endless shape': (array([0, 2**62, 2**62], F8, data(b'')), 'than any memory'),
    'old state': (built(BLANK, group(), F8, FALSE, EIGHT), 'not as numpy writes it'),
    'new version': (
        built(BLANK, number(2), group(), F8, FALSE, EIGHT),
        'not as numpy writes it',
    ),
    'no type': (array([1], NONE, EIGHT), 'a type of numpy is a NoneType'),
    'truths that are 2': (array([1], dtype('b1', order='|'), data(b'\2')), 'nor 1'),
    'no text': (array([1], dtype('U1'), data(b'\xff' * 4)), 'is none of Unicode'),
    'scalar of objects': (call(SCALAR, dtype('O8'), EIGHT), 'is neither'),
    'scalar without type': (call(SCALAR, NONE, EIGHT), 'a type of numpy is a None'),
    'scalar without bytes': (call(SCALAR, F8), 'are a NoneType, not bytes'),
    'short scalar': (call(SCALAR, F8, data(b'\0')), '8 bytes have 1 bytes'),
    'long text': (call(SCALAR, dtype('S1', order='|'), EIGHT), '1 bytes have 8'),
    'truth that is 2': (call(SCALAR, dtype('b1'), data(b'\2')), 'neither 0 nor 1'),
}
LOGS = {
    'called': (
        call(HISTORY, b']' + ADDRESSED + b'a', b']K\x01a', number(1)),
        'HistoryBuffer is called',
    ),
    'made': (HISTORY + group(ADDRESSED) + b'\x81', 'HistoryBuffer is called'),
    'list': (history(_log_history=b']'), 'has a list as'),
    'object with an address': (history(_log_history=ADDRESSED), 'has a OrderedDict as'),
    'array that is not read': (history(_log_history=BLANK), 'has a CheckpointArray as'),
    'array of text': (
        history(_count_history=array([], dtype('S8'), EIGHT)),
        'has a CheckpointArray as',
    ),
    'length': (history(max_length=EIGHT), 'has a bytes as'),
    'further field': (history(__array_interface__=INTERFACE), 'has a dict as'),
    'no state': (HISTORY + b')\x81' + group(NONE, b'}') + b'b', 'is no dict'),
    'statistics': (
        history(statistics_methods=table(mean=BYTEARRAY)),
        'has a dict as',
    ),
}
ATTACKS = {
    **{f'numpy, {key}': attack for key, attack in NUMPY.items()},
    **{
        f'numpy in a log, {key}': (history(_log_history=value), match)
        for key, (value, match) in NUMPY.items()
    },
    **{f'log, {key}': attack for key, attack in LOGS.items()},
}


@pytest.fixture(params=['this torch', 'torch 2.1'])
def unpickler(request, monkeypatch):
    """That of torch, and the one for a torch that takes no further names."""
    if request.param == 'torch 2.1':
        monkeypatch.setattr(checkpoints, 'parse_version', lambda version: (2, 1))


@pytest.mark.parametrize('attack', ATTACKS)
def test_memory_is_left_alone(attack, unpickler, tmp_path):
    value, reason = ATTACKS[attack]
    opcodes.write(tmp_path / 'evil.pth', value)
    with pytest.raises(pickle.UnpicklingError, match=f'is refused: .*{reason}'):
        load_checkpoint_file(tmp_path / 'evil.pth')
    assert HistoryBuffer._statistics_methods.get('mean') in (None, HistoryBuffer.mean)


@weights_only_torch
@pytest.mark.parametrize('attack', ATTACKS)
def test_memory_is_left_alone_by_torch_itself(attack, tmp_path):
    """It knows the names since mmfakd was imported."""
    value, reason = ATTACKS[attack]
    opcodes.write(tmp_path / 'evil.pth', value)
    with pytest.raises(pickle.UnpicklingError, match=reason):
        torch.load(tmp_path / 'evil.pth', weights_only=True)


@pytest.mark.parametrize('value', [ADDRESSED, TAGGED, b']' + TAGGED + b'a'])
def test_objects_that_say_where_they_are(value, unpickler, tmp_path):
    """numpy would look there as soon as it makes an array of them."""
    opcodes.write(tmp_path / 'evil.pth', value)
    with pytest.raises(pickle.UnpicklingError, match='says where in memory'):
        load_checkpoint_file(tmp_path / 'evil.pth')


def test_process_survives(tmp_path):
    """What ended it before: a log of pointers, and dicts that are made in each other.

    mmrazor allows a million calls, for which no stack is large enough.
    """
    pointers = call(NDARRAY, group(number(1)), text('O'), call(BYTEARRAY, EIGHT))
    log = call(HISTORY, pointers, b']K\x01a', number(1))
    depth = 60_000
    dicts = call(CONFIG, (b'}' + text('a')) * depth + b'}' + b's' * depth)
    for file, value in (('log.pth', log), ('dicts.pth', dicts)):
        opcodes.write(tmp_path / file, value)
        program = (
            f'import sys; sys.setrecursionlimit(10**6); sys.argv[1:] = '
            f'"export {file} -o student.pth".split()\n'
            'from mmfakd.cli import main; main()'
        )
        done = forked.run('-c', program, cwd=tmp_path)
        assert done.returncode == 1
        assert 'is refused: ' in done.stderr


CLASSES = {
    'class of logs': HISTORY + group(NONE, table(mean=BYTEARRAY)) + b'b',
    'class of counters': name('collections', 'Counter')
    + group(NONE, table(most_common=BYTEARRAY))
    + b'b',
    'function': name('torch._utils', '_rebuild_tensor_v2')
    + group(NONE, table(__kwdefaults__=table(a=NONE)))
    + b'b',
}


@pytest.mark.parametrize('value', CLASSES.values(), ids=CLASSES)
def test_nothing_is_set_for_everybody(value, unpickler, tmp_path):
    opcodes.write(tmp_path / 'evil.pth', value)
    with pytest.raises(pickle.UnpicklingError, match='is refused'):
        load_checkpoint_file(tmp_path / 'evil.pth')
    assert HistoryBuffer.mean is not bytearray
    assert collections.Counter.most_common is not bytearray
    assert torch._utils._rebuild_tensor_v2.__kwdefaults__ is None


class Calls:
    """Is pickled as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_attributes(**values):
    made = collections.OrderedDict()
    made.__dict__.update(values)
    return made


def set_on(target, state):
    """What had torch set a state on anything: it calls what it is given for that.

    `HistoryBuffer.current` returns what an object has as the last of its history.
    """
    current = HistoryBuffer.current
    found = with_attributes(_log_history={-1: target})
    cast = with_attributes(
        _log_history={-1: with_attributes(as_subclass=current)},
    )
    return Calls(torch._tensor._rebuild_from_type_v2, current, found, (cast,), state)


def states_of_others():
    log, array = HistoryBuffer([1.0, 2.0], [1, 1]), np.ones(64, 'f4')
    tensor = Calls(
        torch._utils._rebuild_device_tensor_from_numpy,
        array,
        torch.float32,
        'cpu',
        False,
    )
    freed = set_on(array, (1, (1,), np.dtype('f4'), False, bytes(4)))
    return {
        'class': [set_on(torch.Tensor, dict(marked=1))],
        'log': [
            log,
            set_on(log, dict(statistics_methods=dict(mean=collections.OrderedDict))),
        ],
        'memory': [tensor, set_on(np.ndarray, dict(dtype='V1')), freed],
        'function alone': [HistoryBuffer.current],
    }


@pytest.mark.parametrize('kind', states_of_others())
def test_no_state_is_set_by_a_function_of_mmengine(kind, unpickler, tmp_path):
    torch.save(dict(values=states_of_others()[kind]), tmp_path / 'evil.pth')
    reason = 'rebuilt by no function of torch|statistics function outside of a log'
    with pytest.raises(pickle.UnpicklingError, match=reason):
        load_checkpoint_file(tmp_path / 'evil.pth')
    assert not hasattr(torch.Tensor, 'marked')
    assert HistoryBuffer._statistics_methods.get('mean') in (None, HistoryBuffer.mean)


@weights_only_torch
@pytest.mark.parametrize('kind', ['class', 'log', 'memory'])
def test_no_state_is_set_by_torch_itself(kind, tmp_path):
    torch.save(dict(values=states_of_others()[kind]), tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='rebuilt by no function of torch'):
        torch.load(tmp_path / 'evil.pth', weights_only=True)
    assert not hasattr(torch.Tensor, 'marked')


def test_tensors_of_other_classes(unpickler, tmp_path):
    """Parameters with attributes of their own, which torch rebuilds so."""
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = 'mine'
    tensor = torch.zeros(3)
    tensor.note = 'too'
    torch.save(dict(a=parameter, b=tensor), tmp_path / 'good.pth')
    loaded = load_checkpoint_file(tmp_path / 'good.pth')
    assert (loaded['a'].note, loaded['b'].note) == ('mine', 'too')
    assert torch.equal(loaded['b'], tensor)


def good_arrays():
    """Arrays and scalars in all forms that checkpoints have them in."""
    arrays = [np.arange(6).astype(code).reshape(2, 3) for code in '?bhilBHILefdFD']
    arrays += [np.asfortranarray(arrays[4]), arrays[4].astype('>i8'), arrays[4].T]
    arrays += [np.array(1.5), arrays[4][:, 1], np.ones((1, 0)), np.ones(0, 'U3')]
    arrays += [
        np.array(['a', 'Zürich']),
        np.array([b'a', b'bc']),
        np.array(['é'], '>U1'),
    ]
    arrays += [np.random.default_rng(0).random(5000)]
    scalars = [array.ravel()[-1] for array in arrays if array.size]
    scalars += [np.str_(''), np.bytes_(b'')]
    return arrays + scalars


OTHERS = [*map(np.dtype, ['f8', '>i4', 'U7', '?']), np.ndarray, np.dtype, HistoryBuffer]


def same(one, other):
    """Whether two values are of one type and are written the same, to the last bit."""
    return type(one) is type(other) and pickle.dumps(one) == pickle.dumps(other)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_values_of_numpy_are_numpys_own(unpickler, zipped, tmp_path):
    values = good_arrays() + OTHERS
    path = tmp_path / 'good.pth'
    torch.save(dict(values=values), path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint_file(path)['values']
    # numpy brings them into the order of bytes of the machine.
    values = pickle.loads(pickle.dumps(values))
    assert len(loaded) == len(values) and all(map(same, loaded, values))
    loaded[0][0, 0] = True


@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_other_protocols(protocol):
    """torch before 2.6 reads them."""
    raw = pickle.dumps(good_arrays(), protocol)
    for one, other in zip(RestrictedPickle.load(BytesIO(raw)), pickle.loads(raw)):
        assert isinstance(one, type(other)) and one.dtype == other.dtype
        assert one.shape == other.shape and one.tobytes() == other.tobytes()


def test_values_of_numpy_wherever_they_are(unpickler, tmp_path):
    kind, shared = np.dtype('f4'), np.ones(2)
    content = dict(
        state=('MT19937', np.arange(4, dtype='u4'), 3, 0, 0.5),
        nested=ConfigDict(a=dict(b=[np.ones(3)], dtype=kind)),
        ordered=collections.OrderedDict(a=np.zeros(1)),
        keys={kind: 1, (kind, 2): {kind}},
        shared=[shared, shared],
    )
    content['ordered'].further = np.ones(1)
    torch.save(content, tmp_path / 'good.pth')
    loaded = load_checkpoint_file(tmp_path / 'good.pth')
    assert type(loaded['state']) is tuple and same(loaded['state'], content['state'])
    assert type(loaded['nested']) is ConfigDict
    assert same(loaded['nested'].a.b[0], np.ones(3))
    assert loaded['nested'].a.dtype is loaded['nested']['a']['dtype'] == kind
    assert same(loaded['ordered']['a'], np.zeros(1))
    assert same(loaded['ordered'].further, np.ones(1))
    assert loaded['keys'] == content['keys']
    assert loaded['shared'][0] is loaded['shared'][1]


@weights_only_torch
def test_arrays_of_torch_itself_are_like_numpys_own(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    log = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(dict(array=array, log=log, list=[array]), tmp_path / 'good.pth')
    loaded = torch.load(tmp_path / 'good.pth', weights_only=True)
    found = loaded['array']
    assert isinstance(found, np.ndarray) and found is loaded['list'][0]
    assert type(found + 1) is type(np.append(found, 1)) is np.ndarray
    assert type(found.sum()) is np.float64 and pickle.dumps(found) == pickle.dumps(
        array
    )
    assert type(found.dtype) is type(array.dtype)
    # A log is MMEngine's own, with numpy's own in it.
    assert type(loaded['log']) is HistoryBuffer and loaded['log'].mean() == 1.5
    assert [type(part) for part in loaded['log'].data] == [np.ndarray] * 2
    torch.save(loaded, tmp_path / 'again.pth')
    again = load_checkpoint_file(tmp_path / 'again.pth')
    assert same(again['array'], array) and not isinstance(
        again['array'], CheckpointArray
    )


@weights_only_torch
def test_names_that_a_user_puts_on_torchs_list(tmp_path):
    """As is advised where torch refuses what MMEngine has written."""
    torch.save(dict(log=HistoryBuffer([1.0], [1]), a=np.ones(2)), tmp_path / 'good.pth')
    known = [HistoryBuffer, np.ndarray, np.dtype, getattr, type(np.dtype('f8'))]
    known += [np.ones(1).__reduce__()[0], type(np.dtype('i8'))]
    with torch.serialization.safe_globals(known):
        assert torch.load(tmp_path / 'good.pth')['log'].mean() == 1
        assert same(load_checkpoint_file(tmp_path / 'good.pth')['a'], np.ones(2))
