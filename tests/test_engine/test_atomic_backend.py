# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A file is there as a whole or not at all."""

import errno
import os

import pytest
from mmengine.fileio import get_file_backend

import mmfakd.engine  # noqa: F401


@pytest.fixture
def backend():
    return get_file_backend(backend_args=dict(backend='mmfakd_atomic'))


def test_new_content_replaces_old(backend, tmp_path):
    path = tmp_path / 'a folder' / 'Größe.pth'
    for content in (b'old', b'new'):
        backend.put(content, path)
        assert path.read_bytes() == content
    backend.put_text('später', str(path))
    assert path.read_text(encoding='utf-8') == 'später'
    assert [file.name for file in path.parent.iterdir()] == ['Größe.pth']


def test_it_is_flushed_before_it_is_renamed(backend, tmp_path, monkeypatch):
    calls = []
    for name in ('fsync', 'replace'):
        real = getattr(os, name)

        def note(*args, _name=name, _real=real):
            calls.append(_name)
            return _real(*args)

        monkeypatch.setattr(os, name, note)
    backend.put(b'1', tmp_path / 'a')
    assert calls == ['fsync', 'replace', 'fsync']


def test_what_was_there_survives_a_failure(backend, tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    backend.put(b'old', path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(
        OSError,
        match=r'epoch_1.pth \(0.0 MB\) could not be written: No '
        r'space left on device. .* untouched. .* MB are free .*--resume',
    ) as caught:
        backend.put(b'new', path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'old'
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']
