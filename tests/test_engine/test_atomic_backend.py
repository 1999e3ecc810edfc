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


def test_links_are_replaced_and_not_followed(backend, tmp_path):
    """They may be those of whoever made the folder."""
    (tmp_path / 'victim').write_text('mine')
    for name in ('page.html', 'page.html.part', 'fresh.part'):
        (tmp_path / name).symlink_to('victim')
    backend.put(b'page', tmp_path / 'page.html')
    backend.put(b'page', tmp_path / 'fresh')
    assert (tmp_path / 'victim').read_text() == 'mine'
    assert not (tmp_path / 'page.html').is_symlink()
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        'fresh',
        'page.html',
        'victim',
    ]


def test_what_a_killed_process_left_is_written_over(backend, tmp_path):
    (tmp_path / 'a.part').write_bytes(b'a half')
    backend.put(b'b', tmp_path / 'a')
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [('a', b'b')]


def test_folders_that_are_links_are_followed(backend, tmp_path):
    """A work dir may lie on another disk."""
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'run').symlink_to('disk')
    backend.put(b'1', tmp_path / 'run' / 'a')
    assert (tmp_path / 'disk' / 'a').read_bytes() == b'1'
