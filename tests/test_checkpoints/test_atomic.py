# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that several processes write at a time, each of them whole."""

import errno
import fcntl
import multiprocessing
import os
import secrets
import signal
import socket
from pathlib import Path

import pytest

from mmfakd.checkpoints import atomic
from mmfakd.checkpoints.atomic import whole_file


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def write(path, content):
    with whole_file(path) as part:
        Path(part).write_bytes(content)


def write_half(path, begun):
    """Write half of a file, and wait for an end that does not come."""
    with whole_file(path) as part:
        Path(part).write_bytes(b'a half')
        begun.set()
        signal.pause()


@pytest.fixture
def living(tmp_path):
    """A process that is within `[a]x.pth`."""
    context = multiprocessing.get_context('fork')
    begun = context.Event()
    process = context.Process(target=write_half, args=(tmp_path / '[a]x.pth', begun))
    process.start()
    assert begun.wait(60)
    yield process
    process.kill()
    process.join()


def test_of_two_that_write_one_file_the_last_one_stays(tmp_path):
    path = tmp_path / 'x.pth'
    with whole_file(path) as first:
        Path(first).write_bytes(b'first')
        with whole_file(path) as second:
            Path(second).write_bytes(b'sec')
            assert len(names(tmp_path)) == 2
        assert path.read_bytes() == b'sec'
        Path(first).write_bytes(b'first, whole')
    assert path.read_bytes() == b'first, whole'
    assert names(tmp_path) == ['x.pth']


def test_only_what_a_killed_process_left_is_removed(living, tmp_path):
    path = tmp_path / '[a]x.pth'
    [part] = names(tmp_path)
    assert part.startswith('[a]x.pth.') and part.endswith('.part')
    write(path, b'other')
    write(tmp_path / 'ax.pth', b'another')
    assert names(tmp_path) == ['[a]x.pth', part, 'ax.pth']
    living.kill()
    living.join()
    write(tmp_path / 'ax.pth', b'another')
    assert part in names(tmp_path)
    write(path, b'new')
    assert names(tmp_path) == ['[a]x.pth', 'ax.pth'] and path.read_bytes() == b'new'


def test_parts_of_other_machines_stay(living, tmp_path, monkeypatch):
    """Their locks may not be seen here."""
    living.kill()
    living.join()
    [part] = names(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(socket, 'gethostname', lambda: 'another')
        write(tmp_path / '[a]x.pth', b'')
    assert names(tmp_path) == ['[a]x.pth', part]
    # Containers have a new name each time, and nobody writes for a day.
    os.utime(tmp_path / part, (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(socket, 'gethostname', lambda: 'another')
        write(tmp_path / '[a]x.pth', b'')
    assert names(tmp_path) == ['[a]x.pth']


@pytest.mark.parametrize('name', ['a' * 255, 'ä' * 127, 'a' * 233, '.' + 'b' * 240])
def test_names_as_long_as_they_may_be(name, tmp_path):
    path = tmp_path / name
    for content in (b'old', b'new'):
        write(path, content)
    assert path.read_bytes() == b'new' and names(tmp_path) == [name]
    with pytest.raises(OSError, match='File name too long.* Choose a shorter name'):
        write(tmp_path / (name * 2), b'')


def test_a_file_system_that_tells_no_two_files_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, 'is_open_file', lambda path, file: False)
    write(tmp_path / 'x.pth', b'new')
    assert names(tmp_path) == ['x.pth'] and (tmp_path / 'x.pth').read_bytes() == b'new'


def test_names_of_parts_are_not_followed(tmp_path, monkeypatch):
    """They are hard to guess, and whoever did gains nothing."""
    path = tmp_path / 'x.pth'
    monkeypatch.setattr(secrets, 'token_hex', lambda size: '0123abcd')
    with whole_file(path) as part:
        pass
    (tmp_path / 'victim').write_text('mine')
    Path(part).symlink_to('victim')
    match = 'x.pth could not be written: File exists. Files that .*Choose another'
    with pytest.raises(FileExistsError, match=match):
        write(path, b'new')
    assert (tmp_path / 'victim').read_text() == 'mine' and path.read_bytes() == b''
    os.remove(part)
    os.mkfifo(part.replace('0123abcd', 'ffffffff'))
    write(path, b'new')
    assert path.read_bytes() == b'new' and len(names(tmp_path)) == 3


def test_a_file_system_without_locks(living, tmp_path, monkeypatch):
    """Nobody can tell what is left over there."""

    def no_locks(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    [part] = names(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, 'flock', no_locks)
        write(tmp_path / '[a]x.pth', b'new')
    assert names(tmp_path) == ['[a]x.pth', part]


def test_a_part_that_was_tidied_up_before_it_was_locked(tmp_path, monkeypatch):
    lock, removed = fcntl.flock, []

    def late(file, operation):
        if not removed:
            removed.append(file.name)
            os.remove(file.name)
        lock(file, operation)

    monkeypatch.setattr(fcntl, 'flock', late)
    write(tmp_path / 'x.pth', b'new')
    assert removed and names(tmp_path) == ['x.pth']
    assert (tmp_path / 'x.pth').read_bytes() == b'new'


def test_errors_name_the_file_and_not_its_part(tmp_path):
    match = r'/y\.pth \(2\.0 MB\) could not be written: No space .* untouched.*Make'
    with (
        pytest.raises(OSError, match=match),
        whole_file(tmp_path / 'y.pth', 2_000_000) as part,
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), part)
    assert names(tmp_path) == []
