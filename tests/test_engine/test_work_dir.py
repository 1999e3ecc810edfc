# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Two trainings in one folder, and a second one after the first."""

import errno
import os
import re
import signal
import socket
import time
from contextlib import contextmanager, suppress

import pytest
import torch
from mmengine.config import Config

from mmfakd.engine.launch import train
from mmfakd.engine.work_dir import (
    clear_folders,
    lock_folders,
    lock_work_dir,
    move_earlier,
    named_files,
)

WRAPPER = dict(optimizer=dict(type='SGD', lr=0.1))


def fork(run):
    """Run a function in a process of its own; return the process's number."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        finally:
            os._exit(1)
    return pid


def hold(folder, pipe):
    """Lock a folder, with two children as data workers are, and stay."""
    lock = lock_work_dir(folder)
    workers = [fork(lambda: time.sleep(60)) for _ in range(2)]
    os.write(pipe, f'{workers[0]} {workers[1]}\n'.encode())
    time.sleep(60)
    lock.close()


@contextmanager
def held(folder):
    """A training in a folder: its number, and those of its data workers."""
    reading, writing = os.pipe()
    holder = fork(lambda: hold(folder, writing))
    workers = list(map(int, os.read(reading, 100).split()))
    try:
        yield holder, workers
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(holder, signal.SIGKILL)
            os.waitpid(holder, 0)
        os.close(reading)
        os.close(writing)


def is_free(folder):
    """Whether another process can lock a folder."""

    def lock():
        with lock_work_dir(folder):
            os._exit(0)

    return os.waitpid(fork(lock), 0)[1] == 0


@contextmanager
def prepared(cfg):
    """The folders of a training, as it finds them."""
    with lock_folders(cfg):
        clear_folders(cfg)
        yield


@pytest.fixture
def folder(tmp_path):
    """A name that breaks what does not quote, not made yet."""
    return tmp_path / 'Läufe und mehr' / "it's run 1"


@pytest.fixture
def warnings(monkeypatch):
    """What the module warns of."""
    told = []
    monkeypatch.setattr(
        'mmfakd.engine.work_dir.print_log', lambda text, **_: told.append(text)
    )
    return told


def config(folder, **settings):
    return Config(dict(work_dir=str(folder), model=dict(type='M'), **settings))


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_text(name)
        os.utime(folder / name, (number, number))


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_second_training_is_refused_until_the_first_is_dead(folder):
    """Killed, it leaves its data workers behind, which hold nothing."""
    with held(folder) as (holder, workers):
        with pytest.raises(BlockingIOError) as error:
            lock_work_dir(folder)
        text = str(error.value)
        assert f'{folder} is in use by another training: pid {holder} on ' in text
        assert socket.gethostname() in text and '--work-dir' in text
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with lock_work_dir(folder):
            assert len(workers) == 2
            for worker in workers:
                os.kill(worker, 0)
            held_by = (folder / 'training.lock').read_text()
            assert held_by.startswith(f'pid {os.getpid()} on')


@pytest.fixture
def plain(folder, tmp_path, monkeypatch):
    """A config that `train` takes, without training it, and a checkpoint of it."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    write(folder, 'resumed_from.txt')
    meta = dict(epoch=1, iter=5, seed=7, time='20260101_000000')
    parts = dict(meta=meta, state_dict={}, message_hub={}, optimizer={})
    torch.save(parts, folder / 'epoch_1.pth')
    schedule = dict(
        train_dataloader=dict(batch_size=4, dataset=dict(type='D')),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=WRAPPER,
    )
    config(folder, **schedule).dump(tmp_path / 'plain.py')
    return str(tmp_path / 'plain.py')


@pytest.mark.parametrize('resume', ['epoch_1.pth', 'epoch_2.pth', 'auto', None])
def test_second_training_touches_nothing(resume, folder, plain):
    """The first one, started again, needs the note of what it was started from."""
    before = {file: file.read_bytes() for file in folder.iterdir()}
    path = str(folder / resume) if resume not in ('auto', None) else resume
    with held(folder), pytest.raises(BlockingIOError, match='in use by another'):
        train(plain, resume=path)
    assert {file: file.read_bytes() for file in before} == before
    assert {*folder.iterdir()} == {*before, folder / 'training.lock'}


def test_training_that_is_refused_gives_the_locks_back(folder, plain):
    # The errors, kept, keep all that the training held.
    with pytest.raises(FileNotFoundError, match=r'epoch_2\.pth') as missing:
        train(plain, resume=str(folder / 'epoch_2.pth'))
    assert is_free(folder) and missing
    named = [f'load_from="{folder / "epoch_1.pth"}"']
    with pytest.raises(ValueError, match='would write its own checkpoints') as own:
        train(plain, cfg_options=named)
    assert is_free(folder) and own
    run = train(plain, resume=str(folder / 'epoch_1.pth'))
    assert not is_free(folder) and callable(run)
    note = (folder / 'resumed_from.txt').read_text()
    assert note == str(folder / 'epoch_1.pth')


def test_lock_ends_with_the_training(folder):
    with lock_work_dir(folder):
        assert not is_free(folder)
    assert is_free(folder)


@pytest.mark.parametrize(
    ('launcher', 'name'),
    [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')],
)
def test_first_process_alone(launcher, name, folder, monkeypatch):
    write(folder, 'epoch_1.pth')
    monkeypatch.setenv(name, '1')
    with prepared(config(folder, launcher=launcher)):
        assert names(folder) == ['epoch_1.pth']
    # A process in a job that was not told so trains alone.
    with prepared(config(folder, launcher='none')):
        assert 'epoch_1.pth' not in names(folder)
    monkeypatch.setenv(name, '0')
    with prepared(config(folder, launcher=launcher)):
        assert 'training.lock' in names(folder)


@pytest.mark.parametrize('above', [False, True])
def test_a_file_in_its_place(above, folder):
    folder.parent.mkdir()
    folder.write_text('a file')
    place = folder / 'below' if above else folder
    with pytest.raises(OSError, match='it, or a folder above it, is a file') as error:
        lock_work_dir(place)
    assert str(error.value).startswith(f'The work dir {place} cannot be written: ')


@pytest.mark.parametrize('windows', [False, True])
def test_lock_that_is_a_link(windows, folder, tmp_path, monkeypatch):
    """It would empty what it leads to."""
    if windows:
        monkeypatch.delattr(os, 'O_NOFOLLOW')
    folder.mkdir(parents=True)
    (victim := tmp_path / 'victim').write_text('mine')
    (folder / 'training.lock').symlink_to(victim)
    with pytest.raises(OSError, match='training.lock is a link, which is not') as error:
        lock_work_dir(folder)
    assert '[Errno' not in str(error.value)
    assert victim.read_text() == 'mine'


def test_work_dir_that_is_a_link(folder, tmp_path):
    folder.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'disk').mkdir()
    folder.symlink_to(tmp_path / 'disk')
    with lock_work_dir(folder):
        assert (tmp_path / 'disk' / 'training.lock').is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_read_only_folder(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    with pytest.raises(OSError, match='cannot be written: Permission denied. Give a'):
        lock_work_dir(folder)


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS])
def test_no_room(number, folder, monkeypatch):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('fcntl.lockf', full)
    with pytest.raises(OSError, match=f'{os.strerror(number)}. Give a folder') as error:
        lock_work_dir(folder)
    assert '[Errno' not in str(error.value)


def test_file_system_without_locks(folder, warnings, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr('fcntl.lockf', unknown)
    with lock_work_dir(folder):
        assert 'cannot be locked (No locks available)' in warnings[0]


def test_rerun_moves_what_is_there(folder, warnings):
    files = ['epoch_2.pth', 'epoch_2_student.pth', 'epoch_1.pth', 'last_checkpoint']
    write(folder, *files, 'config.py')
    with prepared(config(folder)):
        (earlier,) = folder.glob('earlier_*')
    assert names(earlier) == sorted(files)
    assert names(folder) == sorted(['config.py', earlier.name, 'training.lock'])
    assert warnings == [
        f'{folder} holds 3 checkpoints of an earlier training. This one starts anew; '
        f'they are moved to {earlier}. To go on from one of them instead, give its '
        'path as --resume.'
    ]
    # Within the same second, too.
    for _ in range(2):
        write(folder, 'epoch_1.pth')
        with prepared(config(folder)):
            pass
    assert len(list(folder.glob('earlier_*/epoch_1.pth'))) == 3


def test_resumed_and_fresh_trainings_move_nothing(folder, warnings):
    write(folder, 'epoch_1.pth', 'last_checkpoint')
    with prepared(config(folder, resume=True)):
        pass
    assert names(folder) == ['epoch_1.pth', 'last_checkpoint', 'training.lock']
    (folder / 'epoch_1.pth').unlink()
    with prepared(config(folder)):
        pass
    assert names(folder) == ['last_checkpoint', 'training.lock']
    assert not warnings


def test_going_on_from_another_training_moves_what_is_there(folder, tmp_path, warnings):
    """Also from one that was moved before, which stays where it is."""
    write(folder, 'epoch_1.pth', 'last_checkpoint')
    with prepared(config(folder)):
        (earlier,) = folder.glob('earlier_*')
    write(tmp_path / 'other', 'epoch_3.pth')
    for path in (earlier / 'epoch_1.pth', tmp_path / 'other' / 'epoch_3.pth'):
        write(folder, 'epoch_2.pth', 'best_score_epoch_1.pth', 'last_checkpoint')
        known = set(folder.iterdir())
        with prepared(config(folder, resume=True, load_from=str(path))):
            (new,) = set(folder.iterdir()) - known
        moved = ['best_score_epoch_1.pth', 'epoch_2.pth', 'last_checkpoint']
        assert names(new) == moved and not list(folder.glob('*.pth'))
        assert path.is_file() and names(earlier) == ['epoch_1.pth', 'last_checkpoint']
        assert f'This one goes on from {path}; they are moved to {new}.' in warnings[-1]


def test_going_on_within_its_folders_moves_nothing(
    folder, tmp_path, warnings, monkeypatch
):
    """However the file is named: by links, another folder, or one of its hook."""
    write(folder, 'epoch_1.pth', 'epoch_2.pth')
    out = tmp_path / 'out' / folder.name
    write(out, 'epoch_1.pth', 'epoch_2.pth')
    (tmp_path / 'runs').symlink_to(folder.parent)
    (tmp_path / 'newest.pth').symlink_to(folder / 'epoch_2.pth')
    write(tmp_path / 'disk', 'epoch_0.pth')
    (folder / 'epoch_0.pth').symlink_to(tmp_path / 'disk' / 'epoch_0.pth')
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir=str(out.parent)))
    monkeypatch.chdir(folder)
    for path in (
        *(folder / 'epoch_1.pth', folder / 'epoch_0.pth', out / 'epoch_1.pth'),
        *(tmp_path / 'runs' / folder.name / 'epoch_1.pth', tmp_path / 'newest.pth'),
        *('epoch_1.pth', './epoch_2.pth', f'../{folder.name}/epoch_1.pth'),
    ):
        named = dict(resume=True, load_from=str(path), default_hooks=hooks)
        for work_dir in (folder, '.'):
            with prepared(config(work_dir, **named)):
                pass
    there = ['epoch_0.pth', 'epoch_1.pth', 'epoch_2.pth', 'training.lock']
    assert names(folder) == there and names(out) == there[1:]
    assert not warnings


def test_folder_of_the_hook(folder, tmp_path, warnings):
    out = tmp_path / 'out' / folder.name
    write(out, 'iter_5.pth')
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir=str(out.parent)))
    with prepared(config(folder, default_hooks=hooks)):
        pass
    assert len(list(out.glob('earlier_*/iter_5.pth'))) == 1
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir='s3://bucket'))
    with prepared(config(folder, default_hooks=hooks)):
        pass


def test_a_folder_of_two_trainings(tmp_path):
    """Their work dirs differ, and where they write checkpoints is the same."""
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir=str(tmp_path / 'out')))
    one, other = (
        config(tmp_path / name / 'run', default_hooks=hooks, resume=name == 'b')
        for name in 'ab'
    )

    def second():
        with prepared(other):
            os._exit(0)

    def is_refused():
        return os.waitpid(fork(second), 0)[1] != 0

    with prepared(one):
        assert not is_free(tmp_path / 'out' / 'run') and not is_free(one.work_dir)
        # What was locked until then is given back.
        assert is_refused() and is_free(other.work_dir)
    assert not is_refused()


def test_a_project_as_work_dir(tmp_path, monkeypatch, warnings):
    """What is no checkpoint stays, whatever its name."""
    monkeypatch.chdir(tmp_path)
    others = ['.gitignore', '.pth', 'Dockerfile', 'LICENSE', 'Makefile', 'README']
    write(tmp_path, *others, 'epoch_1.pth')
    torch.save({}, tmp_path / 'latest')
    torch.save({}, tmp_path / 'old', _use_new_zipfile_serialization=False)
    (tmp_path / 'hidden').symlink_to(tmp_path / 'nowhere')
    target = move_earlier('.', {})
    assert names(target) == ['epoch_1.pth', 'latest', 'old']
    assert set(others) <= set(names(tmp_path))


@pytest.mark.parametrize('moved', range(4))
def test_interrupted_move_loses_nothing(moved, folder, warnings, monkeypatch):
    files = ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'last_checkpoint']
    write(folder, *files)
    rename, calls = os.rename, iter(range(9))

    def killed(source, target, **_):
        if next(calls) == moved:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr('pathlib.Path.rename', lambda *paths: killed(*paths))
        with pytest.raises(KeyboardInterrupt):
            clear_folders(config(folder))
    left = [name for name in files if (folder / name).exists()]
    # The newest goes last.
    assert left == files[moved:]
    with prepared(config(folder)):
        pass
    found = [path.name for path in folder.glob('earlier_*/*')]
    rest = [name for name in names(folder) if name in files]
    assert sorted(found + rest) == sorted(files)


def test_weights_of_the_training_itself(folder, warnings):
    """Those that it may overwrite are refused, others are left alone."""
    write(folder, 'teacher.pth', 'epoch_1.pth')
    model = dict(type='M', teacher_ckpt=str(folder / 'teacher.pth'))
    cfg = Config(dict(work_dir=str(folder), model=model))
    assert list(named_files(cfg).values()) == [str(folder / 'teacher.pth')]
    with prepared(cfg):
        (earlier,) = folder.glob('earlier_*')
    assert names(earlier) == ['epoch_1.pth'] and (folder / 'teacher.pth').is_file()
    with prepared(cfg):
        assert list(folder.glob('earlier_*')) == [earlier]

    write(folder, 'epoch_1.pth', 'epoch_2.pth')
    cfg = config(folder, load_from=os.path.relpath(folder / 'epoch_1.pth'))
    text = f'The config names {cfg.load_from}, and the training would write its own'
    with pytest.raises(ValueError, match=re.escape(text)):
        clear_folders(cfg)
    assert {'epoch_1.pth', 'epoch_2.pth'} <= set(names(folder))


@pytest.mark.parametrize(
    ('template', 'name', 'writes'),
    [
        ('ckpt_{}.pth', 'ckpt_12.pth', True),
        ('ckpt_{}.pth', 'ckpt_12_student.pth', True),
        ('ckpt_{}.pth', 'ckpt_12-plain.pth', True),
        ('ckpt_{:04d}.pth', 'ckpt_0012.pth', True),
        ('run[1]+{}.pth', 'run[1]+3.pth', True),
        # Written anew every time.
        ('latest.pth', 'latest.pth', True),
        ('{}.pth', '3.pth', True),
        ('ckpt_{}.pth', 'best_score_ckpt_1.pth', True),
        ('ckpt_{}.pth', 'ckpt_teacher.pth', False),
        ('ckpt_{}.pth', 'ckpt_12_teacher.pth', False),
        ('ckpt_{}.pth', 'my_ckpt_12.pth', False),
        ('{}.pth', 'resnet50.pth', False),
        (None, 'ckpt_12.pth', False),
    ],
)
def test_weights_under_the_names_of_a_hook(template, name, writes, folder, warnings):
    """Named as `filename_tmpl` says, they would be overwritten."""
    write(folder, name, 'epoch_9.pth')
    hooks = dict(
        checkpoint=dict(type='CheckpointHook', filename_tmpl=template), student=None
    )
    student = dict(type='mmfakd.StudentCheckpointHook', suffix='-plain')
    model = dict(type='M', teacher_ckpt=str(folder / name))
    settings = dict(model=model, default_hooks=hooks, custom_hooks=[student])
    cfg = Config(dict(work_dir=str(folder), **settings))
    if writes:
        with pytest.raises(ValueError, match='would write its own checkpoints into'):
            clear_folders(cfg)
        assert {name, 'epoch_9.pth'} <= set(names(folder))
        return
    with prepared(cfg):
        (earlier,) = folder.glob('earlier_*')
    assert (folder / name).is_file() and names(earlier) == ['epoch_9.pth']


def test_nothing_to_move(folder):
    assert move_earlier(folder, {}) is None
