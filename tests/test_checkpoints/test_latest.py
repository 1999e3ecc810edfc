# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The newest checkpoint that is good, whatever its name and whatever lies beside it."""

import os
import pickle
import re
import shutil

import pytest
import torch

from mmfakd.checkpoints.latest import (
    check_resumable,
    checkpoint_folders,
    find_checkpoint,
    find_damage,
    find_flaw,
    needed_states,
)


def write(path, step, time=None, optimizer=True, **save):
    """A checkpoint as the runner writes them, without what is not read here."""
    checkpoint = dict(
        meta=dict(epoch=step, iter=10 * step, time=f'20260101_1200{step:02d}'),
        state_dict=dict(weight=torch.arange(1000.0)),
        message_hub=dict(runtime_info={}),
    )
    if optimizer:
        checkpoint['optimizer'] = {}
    if time is not None:
        checkpoint['position'] = dict(time=time)
    torch.save(checkpoint, path, **save)
    return path


@pytest.fixture
def folder(tmp_path):
    for step in (1, 2, 10):
        write(tmp_path / f'epoch_{step}.pth', step)
    student = dict(meta=dict(epoch=10, iter=100), state_dict=dict(w=torch.ones(1)))
    torch.save(student, tmp_path / 'epoch_10_student.pth')
    write(tmp_path / 'best_acc_epoch_10.pth', 11, optimizer=False)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    (tmp_path / 'epoch_11.pth.part').write_bytes(b'PK')
    (tmp_path / 'config.py').write_text('x = 1')
    return tmp_path


def name(found):
    return found.path and os.path.basename(found.path)


def test_the_newest(folder):
    found = find_checkpoint(folder)
    assert (name(found), found.skipped) == ('epoch_10.pth', [])


def test_whatever_the_times_of_the_files(folder):
    """As after `cp -r`."""
    os.utime(folder / 'epoch_10.pth', (1, 1))
    assert name(find_checkpoint(folder)) == 'epoch_10.pth'


def test_the_later_of_two_branches(folder):
    """Training went back to epoch 2, and on from there."""
    now = 2e9
    write(folder / 'epoch_3.pth', 3, time=now)
    assert name(find_checkpoint(folder)) == 'epoch_3.pth'
    write(folder / 'interrupted.pth', 4, time=now + 1)
    assert name(find_checkpoint(folder)) == 'interrupted.pth'


def test_a_name_without_ending_and_another_folder(folder, tmp_path):
    other = tmp_path / 'other'
    other.mkdir()
    write(other / 'latest', 20)
    assert name(find_checkpoint(folder, other)) == 'latest'
    assert checkpoint_folders('a/run', [None, 'out', 's3://bucket']) == [
        'a/run',
        'out/run',
        's3://bucket/run',
    ]


def test_the_folder_of_a_work_dir_by_its_real_name(tmp_path, monkeypatch):
    (tmp_path / 'run').mkdir()
    monkeypatch.chdir(tmp_path / 'run')
    for work_dir in ('.', './', '../run', '../run/'):
        assert checkpoint_folders(work_dir, ['out'])[1:] == ['out/run']


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b'')


def hostile(path):
    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {path}.executed',)

    with path.open('wb') as file:
        pickle.dump(Evil(), file)


@pytest.mark.parametrize(
    'harm, reason',
    [
        (truncate, 'truncated or not a checkpoint'),
        (empty, r'truncated or not a checkpoint \(0 bytes'),
        (flip, 'a checksum in it does not fit'),
        (hostile, 'does not begin as files of torch.save do'),
    ],
)
def test_a_damaged_one_is_passed_over(harm, reason, folder):
    harm(folder / 'epoch_10.pth')
    found = find_checkpoint(folder)
    assert name(found) == 'epoch_2.pth'
    assert len(found.skipped) == 1 and 'epoch_10.pth' in found.skipped[0]
    assert re.search(reason, found.skipped[0])
    assert not (folder / 'epoch_10.pth.executed').exists()


def test_an_unreadable_student_or_older_file_stops_nothing(folder):
    for damaged in ('epoch_10_student.pth', 'epoch_1.pth'):
        truncate(folder / damaged)
    found = find_checkpoint(folder)
    assert name(found) == 'epoch_10.pth'
    assert len(found.skipped) == 2


def test_the_older_format_of_torch(folder):
    path = write(folder / 'epoch_12.pth', 12, _use_new_zipfile_serialization=False)
    assert name(find_checkpoint(folder)) == 'epoch_12.pth'
    assert find_damage(path) is None


def test_nothing_there(tmp_path):
    assert find_checkpoint(tmp_path, tmp_path / 'missing') == (None, [])


def test_what_a_named_file_is(folder):
    check_resumable(folder / 'epoch_1.pth')
    with pytest.raises(
        ValueError,
        match=r'epoch_10_student.pth: it is a student file .*'
        r'--resume alone for the newest. .*--student-ckpt',
    ):
        check_resumable(folder / 'epoch_10_student.pth')
    torch.save(dict(weight=torch.ones(1)), folder / 'plain.pth')
    with pytest.raises(ValueError, match='a file of plain weights'):
        check_resumable(folder / 'plain.pth')
    with pytest.raises(FileNotFoundError):
        check_resumable(folder / 'missing.pth')
    flip(folder / 'epoch_2.pth')
    with pytest.raises(ValueError, match=r'--resume: .*epoch_2.pth.* checksum'):
        check_resumable(folder / 'epoch_2.pth')
    assert 'checksum' in find_flaw(folder / 'epoch_2.pth')
    assert find_flaw(folder / 'epoch_1.pth') is None


def test_states_that_are_needed():
    schedule = dict(type='MultiStepLR', milestones=[1])
    both = ('optimizer', 'param_schedulers')
    for given in (schedule, [schedule], dict(one=[schedule], two=[])):
        assert needed_states(given) == both
    for none in (None, [], dict(one=[], two=[])):
        assert needed_states(none) == ('optimizer',)


def test_a_named_file_that_lacks_a_state(folder):
    best = folder / 'best_acc_epoch_10.pth'
    match = (
        r'best_acc_epoch_10.pth lacks the state of the optimizer \(`optimizer`\), .*'
        r'Give --resume .*epoch_10.pth, which lacks nothing. .*--student-ckpt or .*'
        '--allow-changes'
    )
    with pytest.raises(ValueError, match=match):
        check_resumable(best)
    check_resumable(best, needed=())
    # No file beside it has that; damaged ones are passed over.
    truncate(folder / 'epoch_2.pth')
    match = r'_10.pth lacks the state of the schedule \(`param_sched.*`\), (?!.*Give)'
    with pytest.raises(ValueError, match=match):
        check_resumable(folder / 'epoch_10.pth', needed_states([{}, {}]))


def test_a_training_without_a_schedule_lacks_none(folder):
    """LearningRateHook compares what it has with the config's."""
    path = folder / 'epoch_1.pth'
    checkpoint = torch.load(path)
    checkpoint['meta']['mmfakd'] = dict(schedulers={'': []})
    torch.save(checkpoint, path)
    check_resumable(path, ('optimizer', 'param_schedulers'))


def test_a_moved_folder(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp('new') / 'moved here'
    shutil.move(folder, moved)
    assert find_checkpoint(moved).path == str(moved / 'epoch_10.pth')
