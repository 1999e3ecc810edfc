# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whatever is damaged in a work dir, `--resume` goes on from what is good."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from mmfakd.engine.launch import train as launch
from tests.helpers.killing import differences
from tests.helpers.tiny_runs import distillation, run_config


@pytest.fixture(scope='module')
def folders(tmp_path_factory, teacher_ckpt):
    """A whole training, one that stopped after two epochs, and the config."""
    folder = tmp_path_factory.mktemp('damaged')
    cfg = run_config(
        'anywhere',
        distillation(teacher_ckpt),
        epochs=3,
        hooks=[dict(type='mmfakd.StudentCheckpointHook')],
        validate=True,
        checkpoint=dict(max_keep_ckpts=3),
    )
    cfg.default_hooks.epoch_seed = dict(type='mmfakd.EpochSeedHook')
    cfg.log_level = 'INFO'
    cfg.dump(folder / 'config.py')
    whole, begun = folder / 'whole', folder / 'begun'
    resume(folder, whole, resume=None)
    shutil.copytree(whole, begun)
    # Folders of logs are named by the second, in which a resumed run may begin, too.
    [logs] = begun.glob('2*')
    logs.rename(begun / '20010101_000000')
    for path in begun.glob('epoch_3*'):
        path.unlink()
    (begun / 'last_checkpoint').write_text(str(begun / 'epoch_2.pth'))
    return folder


def resume(folder, work_dir, resume='auto'):
    """What `mmfakd train` calls."""
    # Runs of one name would share a message hub.
    options = [f'experiment_name={work_dir.parent.name}_{work_dir.name}']
    config = str(folder / 'config.py')
    launch(config, work_dir=str(work_dir), resume=resume, cfg_options=options)()


def flip(path, ending=''):
    """Turn one bit in the middle of the largest tensor, or of another record."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        records = [r for r in archive.infolist() if r.filename.endswith(ending)]
        if not ending:
            records = [r for r in records if '/data/' in r.filename]
        largest = max(records, key=lambda record: record.file_size)
        begin = content.index(archive.read(largest))
    content[begin + largest.file_size // 2] ^= 1
    path.write_bytes(content)


def flip_pickle(path):
    """Turn one bit of what names the tensors, not of the tensors."""
    flip(path, 'data.pkl')


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b'')


def elsewhere(path):
    path.write_text('/gone/work_dir/epoch_2.pth')


@pytest.mark.parametrize(
    'damage, skipped, told',
    [
        ({'epoch_2.pth': truncate}, 1, 'the end of its zip archive is missing'),
        ({'epoch_2.pth': empty, 'last_checkpoint': empty}, 1, '(0 bytes'),
        ({'epoch_2.pth': flip}, 1, 'a checksum in it does not fit'),
        ({'epoch_2.pth': flip_pickle}, 1, 'a checksum in it does not fit'),
        ({'epoch_2_student.pth': truncate, 'last_checkpoint': Path.unlink}, 0, 'anew'),
        (
            {
                'epoch_1.pth': truncate,
                'epoch_1_student.pth': empty,
                'last_checkpoint': elsewhere,
            },
            0,
            'cannot be read',
        ),
    ],
    ids=['truncated', 'empty', 'flipped', 'flipped pickle', 'student', 'older'],
)
def test_some_files(damage, skipped, told, folders, tmp_path):
    # In a folder that has been moved, too.
    work_dir = tmp_path / 'renamed'
    shutil.copytree(folders / 'begun', work_dir)
    for name, spoil in damage.items():
        spoil(work_dir / name)
    logs = set(work_dir.glob('*/*.log'))
    resume(folders, work_dir)
    [log] = set(work_dir.glob('*/*.log')) - logs
    text = log.read_text()
    assert f'resumed epoch: {2 - skipped}' in text
    lines = [line for line in text.splitlines() if told in line and 'WARNING' in line]
    assert lines and all(str(work_dir / next(iter(damage))) in line for line in lines)
    found = differences(folders / 'whole', work_dir)
    # What is older stays as it is.
    assert [line for line in found if not re.match('epoch_1.*Checkpoint', line)] == []


def test_all_of_them(folders, tmp_path):
    """Nothing good is left: it begins anew, and moves the rest out of the way."""
    work_dir = tmp_path / 'run'
    shutil.copytree(folders / 'begun', work_dir)
    for path in work_dir.glob('*.pth'):
        truncate(path)
    with pytest.warns(UserWarning, match='no checkpoint to go on from') as told:
        resume(folders, work_dir)
    text = ''.join(str(warning.message) for warning in told)
    [earlier] = work_dir.glob('earlier_*')
    names = {path.name for path in (folders / 'begun').glob('*.pth')}
    assert {path.name for path in earlier.glob('*.pth')} == names
    assert text.count('skipped: Checkpoint') == len(names)
    shutil.rmtree(earlier)
    assert differences(folders / 'whole', work_dir) == []
