# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files whose values are nested too deeply, or are endless, are refused in words."""

import json
import pickle
import pickletools
import struct
import sys
import zipfile

import pytest
import torch

from mmfakd import cli
from mmfakd.compat import load_checkpoint_file
from mmfakd.compat.deep_tuples import _nests, nests_tuples_deeply
from mmfakd.compat.nesting import find_excess, usual_recursion_limit

WRAP = {
    'list': lambda value: [value],
    'tuple': lambda value: (value,),
    'dict': lambda value: {'a': value},
    'all': lambda value: [({'a': value},)],
}
LIMIT = 'nested more than 100 levels deep'


def nested(kind, depth):
    value = 1
    for _ in range(depth):
        value = WRAP[kind](value)
    return value


def doubled(times):
    """A value that is written in a few bytes and has 2^times places."""
    value = [1]
    for _ in range(times):
        value = [value, value]
    return value


def endless():
    value = []
    value.append(value)
    return value


def write(path, meta):
    """Write a checkpoint of a student."""
    state_dict = {'architecture.backbone.weight': torch.ones(2)}
    torch.save(dict(state_dict=state_dict, meta=meta), path)


@pytest.mark.parametrize('kind', WRAP)
def test_depth(kind):
    assert find_excess(nested(kind, 30)) is None
    assert LIMIT in find_excess(nested(kind, 100_000))


def test_number():
    assert find_excess(doubled(10)) is None
    assert find_excess(dict(a=[0] * 4_000_000)) is None
    assert '5,000,000 values or more' in find_excess(doubled(90))
    assert '5,000,000 values or more' in find_excess([[0] * 3000] * 3000)


def test_in_itself():
    assert LIMIT in find_excess(endless())


@pytest.mark.parametrize(
    ('value', 'reason'),
    [
        (nested('list', 150), LIMIT),
        (nested('all', 60), LIMIT),
        (doubled(60), 'values or more'),
        (endless(), LIMIT),
    ],
    ids=['list', 'all', 'doubled', 'endless'],
)
def test_checkpoint(value, reason, tmp_path):
    path = tmp_path / 'from elsewhere.pth'
    write(path, dict(epoch=1, note=value))
    with pytest.raises(pickle.UnpicklingError, match=f'elsewhere.*{reason}'):
        load_checkpoint_file(path)
    assert path.stat().st_size < 10_000
    with pytest.raises(SystemExit) as ended:
        cli.main(['export', str(path), '-o', str(tmp_path / 'student.pth')])
    assert reason in str(ended.value.code)
    assert sorted(tmp_path.iterdir()) == [path]


def test_safetensors(tmp_path, monkeypatch):
    """What is too deep stays a text, though mmrazor lets Python recurse."""
    pytest.importorskip('safetensors')
    deep = '[' * 200_000 + ']' * 200_000
    tensor = dict(dtype='F32', shape=[1], data_offsets=[0, 4])
    header = json.dumps(
        dict(__metadata__=dict(deep=deep, good='[1, 2]'), weight=tensor)
    )
    path = tmp_path / 'weights.safetensors'
    content = header.encode() + b' ' * (-len(header) % 8)
    path.write_bytes(struct.pack('<Q', len(content)) + content + bytes(4))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2**20)
    try:
        meta = load_checkpoint_file(path)['meta']
        assert sys.getrecursionlimit() == 2**20
    finally:
        sys.setrecursionlimit(before)
    assert meta == dict(deep=deep, good=(1, 2))


def with_key(path, depth, protocol=b'\x80\x02', tuples=b'\x85'):
    """Put a dict with a key of nested tuples in the place of a checkpoint's pickle."""
    torch.save({'weight': torch.ones(2)}, path.with_suffix('.whole'))
    pickled = protocol + b'}K\x01' + tuples * depth + b'K\x02s.'
    source = zipfile.ZipFile(path.with_suffix('.whole'))
    with source, zipfile.ZipFile(path, 'w') as archive:
        for entry in source.infolist():
            is_pickle = entry.filename.endswith('data.pkl')
            archive.writestr(entry, pickled if is_pickle else source.read(entry))


def test_key_that_overflows_the_stack_as_it_is_hashed(tmp_path):
    """Python dies of 300,000 levels; nothing comes to that."""
    path = tmp_path / 'keys.pth'
    for depth, reason in ((300_000, 'nests tuples thousands'), (150, LIMIT)):
        with_key(path, depth)
        with pytest.raises(pickle.UnpicklingError, match=reason):
            load_checkpoint_file(path)
    with_key(path, 3)
    assert load_checkpoint_file(path) == {(((1,),),): 2}


def test_fields_of_what_is_no_container(tmp_path):
    """A tensor may have further ones."""
    tensor = torch.ones(1)
    tensor.further = nested('list', 150)
    write(tmp_path / 'tensor.pth', dict(loss=tensor))
    with pytest.raises(pickle.UnpicklingError, match=LIMIT):
        load_checkpoint_file(tmp_path / 'tensor.pth')


TUPLES = [
    ((((1,), 2), 3), 3),
    ({'a': (1, 2, 3), ((1, 2),): [()]}, 2),
    ([1, (2, (3, 4, 5, 6)), 'text', {'a'}], 2),
    (7, 0),
]


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(('value', 'depth'), TUPLES)
def test_depth_of_tuples_in_pickles(value, depth, protocol):
    pickled = pickle.dumps(value, protocol)
    nests = list(_nests(pickletools.genops(pickled)))
    assert max((nest.depth for nest in nests), default=0) == depth
    assert not nests_tuples_deeply(pickled)


def test_depth_of_tuples():
    """Each with one part, by either opcode."""
    assert nests_tuples_deeply(b'\x80\x02K\x01' + b'\x85' * 1001 + b'.')
    assert not nests_tuples_deeply(b'\x80\x02K\x01' + b'\x85' * 1000 + b'.')
    assert nests_tuples_deeply(b'\x80\x02(' * 1500 + b'K\x01' + b't' * 1500 + b'.')


@pytest.mark.parametrize('twice', [b'q\x01h\x01\x86', b'2\x86'])
def test_places_of_shared_and_copied_tuples(twice):
    """Through the pickle's memo, and twice on its stack: t = (t, t), time and again."""
    key = b'\x80\x02K\x01\x85'
    assert nests_tuples_deeply(key + twice * 60 + b'.')
    assert nests_tuples_deeply(key + twice * 22 + b'.')
    assert not nests_tuples_deeply(key + twice * 21 + b'.')
    *_, nest = _nests(pickletools.genops(key + twice * 10 + b'.'))
    assert (nest.depth, nest.places) == (11, 2**11 - 1)


def test_a_key_that_would_be_hashed_for_years_is_refused(tmp_path):
    with_key(tmp_path / 'key.pth', 60, tuples=b'2\x86')
    with pytest.raises(pickle.UnpicklingError, match='nests tuples thousands of'):
        load_checkpoint_file(tmp_path / 'key.pth')


@pytest.mark.parametrize('text', [b'', b'\x85' * 2000, b'no pickle' + b't' * 2000])
def test_what_is_no_pickle_is_left_to_its_reader(text):
    assert not nests_tuples_deeply(text)


def test_limit_comes_back_after_an_error():
    before = sys.getrecursionlimit()
    with pytest.raises(KeyError), usual_recursion_limit():
        assert sys.getrecursionlimit() <= 1000
        raise KeyError
    assert sys.getrecursionlimit() == before
