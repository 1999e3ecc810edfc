# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A disk that is full or read-only: it is told clearly, and nothing is lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmfakd.checkpoints.latest import find_flaw
from mmfakd.engine.launch import train as launch
from tests.helpers.killing import differences
from tests.helpers.tiny_runs import distillation, run_config, train


def mount(folder, *options):
    command = ['mount', *options, str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def leave(folder, free):
    """Let so many bytes be free."""
    size = shutil.disk_usage(folder).used + free
    mount(folder, '-o', f'remount,size={size}')


@pytest.fixture
def disk(tmp_path):
    """A small file system in memory, where this may be had."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    if not sys.platform.startswith('linux') or os.geteuid() != 0:
        pytest.skip('only root on Linux mounts file systems')
    try:
        mount(folder, '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs')
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'no file system can be mounted here: {error}')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


@HOOKS.register_module()
class FillDisk(Hook):
    """Leaves little room after every epoch, the first checkpoint included."""

    priority = 'LOWEST'

    def __init__(self, disk, free=0):
        self.disk, self.free = disk, free

    def after_train_epoch(self, runner):
        leave(self.disk, self.free)


def config(work_dir, teacher_ckpt, **kwargs):
    hooks = [
        dict(type='mmfakd.ResumeHook'),
        dict(type='mmfakd.StudentCheckpointHook'),
        dict(type='mmfakd.EpochSeedHook'),
    ]
    cfg = run_config(
        work_dir,
        distillation(teacher_ckpt),
        epochs=3,
        hooks=hooks,
        checkpoint=dict(max_keep_ckpts=1),
        **kwargs,
    )
    cfg.default_hooks.checkpoint.type = 'mmfakd.SafeCheckpointHook'
    return cfg


def names(folder):
    files = (path.name for path in Path(folder).glob('*') if path.is_file())
    return {name for name in files if not name.endswith(('.py', '.lock'))}


@pytest.mark.parametrize('part', ['checkpoint', 'student'])
def test_full(part, disk, tmp_path, teacher_ckpt):
    """The first checkpoint fits and the second does not, or only its student."""
    train(config(tmp_path / 'whole', teacher_ckpt))
    sizes = [
        (tmp_path / 'whole' / f'epoch_3{end}.pth').stat().st_size
        for end in ('', '_student')
    ]
    # Logs and the pointer take some pages as well.
    free = sizes[0] // 2 if part == 'checkpoint' else sizes[0] + 4096 + sizes[1] // 2
    run = disk / 'run'
    with pytest.raises(OSError) as error:
        train(config(run, teacher_ckpt), FillDisk(disk, free))
    failed = 'epoch_2.pth' if part == 'checkpoint' else 'epoch_2_student.pth'
    text = str(error.value)
    assert f'{run / failed} (' in text
    assert 'could not be written: No space left on device. Files that were' in text
    assert 'MB are free there. Make room' in text and '--resume.' in text

    # A whole one is there, and nothing half.
    kept = {'epoch_1.pth', 'epoch_1_student.pth', 'last_checkpoint'}
    kept |= {'epoch_2.pth'} if part == 'student' else set()
    assert names(run) == kept
    for name in kept - {'last_checkpoint'}:
        assert find_flaw(run / name) is None

    mount(disk, '-o', 'remount,size=64m')
    train(config(run, teacher_ckpt, resume=True))
    assert differences(tmp_path / 'whole', run) == []


def write_config(folder, teacher_ckpt):
    path = str(folder / 'config.py')
    config('anywhere', teacher_ckpt).dump(path)
    return path


def test_full_before_it_begins(disk, tmp_path, teacher_ckpt):
    """A new work dir, and one that is resumed."""
    path = write_config(tmp_path, teacher_ckpt)
    train(config(disk / 'run', teacher_ckpt))
    before = names(disk / 'run')
    leave(disk, 0)
    with pytest.raises(OSError, match='No space left on device.* room') as error:
        launch(path, work_dir=str(disk / 'run'), resume='auto')()
    assert str(disk / 'run') in str(error.value)
    assert names(disk / 'run') == before


def test_full_of_logs(disk, tmp_path, teacher_ckpt):
    """A log has no more room, between two checkpoints."""
    cfg = config(tmp_path / 'run', teacher_ckpt)
    cfg.train_cfg.max_epochs, cfg.default_hooks.checkpoint.interval = 100, 100
    cfg.custom_hooks.append(dict(type='FillDisk', disk=str(disk)))
    cfg.dump(tmp_path / 'config.py')
    run = launch(str(tmp_path / 'config.py'), work_dir=str(disk / 'run'))
    with pytest.raises(OSError, match='No space left on device') as error:
        run()
    text = str(error.value)
    assert f'a log in {disk / "run"} could not be written' in text
    assert 'Make room, then go on with --resume.' in text


@pytest.mark.parametrize('resume', [None, 'auto'])
def test_read_only(resume, disk, tmp_path, teacher_ckpt):
    path = write_config(tmp_path, teacher_ckpt)
    # Its log is still open.
    train(config(tmp_path / 'run', teacher_ckpt))
    shutil.copytree(tmp_path / 'run', disk / 'run')
    before = names(disk / 'run')
    mount(disk, '-o', 'remount,ro')
    for work_dir in (disk / 'run', disk / 'another'):
        with pytest.raises(OSError) as error:
            launch(path, work_dir=str(work_dir), resume=resume)
        assert str(error.value).startswith(
            f'The work dir {work_dir} cannot be written: Read-only file system. Give a '
            'folder that can (--work-dir)'
        )
    assert names(disk / 'run') == before
