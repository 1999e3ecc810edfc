# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that a stranger's config names are read as plain values, or not at all."""

import numpy as np
import pytest
from mmengine import fileio

from mmfakd.compat.refused_error import RefusedError
from mmfakd.model_zoo.plain_files import plain_files_only

EVIL = '!!python/object/apply:os.system ["touch ran"]'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.pkl').write_bytes(b'cos\nsystem\n(Vtouch ran\ntR.')
    (tmp_path / 'a.yml').write_text(EVIL)
    (tmp_path / 'plain.yaml').write_text('a: [1, {b: c}]')
    np.save('a.npy', np.array([None]))
    return tmp_path


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('a.pkl', 'a pickle is named by the config, and not read'),
        ('a.yml', 'a YAML file is named by the config that holds more than plain'),
        ('http://localhost/a.json', 'an address is named .* not read: http://local'),
    ],
)
def test_what_can_run_something_is_refused(file, message, folder):
    with plain_files_only(), pytest.raises(RefusedError, match=message):
        fileio.load(file)
    assert not (folder / 'ran').exists()


def test_objects_in_arrays_are_refused(folder):
    with plain_files_only(), pytest.raises(RefusedError, match='a pickle is named'):
        np.load('a.npy', allow_pickle=True)


def test_plain_values_are_read(folder):
    fileio.dump(dict(a=1), 'a.json')
    with plain_files_only():
        assert fileio.load('plain.yaml') == dict(a=[1, dict(b='c')])
        assert fileio.load('a.json') == dict(a=1)


def test_afterwards_all_is_as_before(folder):
    with pytest.raises(KeyError), plain_files_only(), plain_files_only():
        raise KeyError
    fileio.dump([1], 'own.pkl')
    assert fileio.load('own.pkl') == [1]
    assert np.load('a.npy', allow_pickle=True).tolist() == [None]
    fileio.load('a.yml')
    assert (folder / 'ran').exists()
