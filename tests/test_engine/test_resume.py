# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is settled before anything is built: the checkpoint, and its seed."""

import os
import re
import warnings

import pytest
import torch
from mmengine.config import Config

from mmfakd.checkpoints import fetch
from mmfakd.engine.launch import merge_train_options
from mmfakd.engine.resume import prepare_resume
from mmfakd.engine.work_dir import clear_folders
from tests.helpers.weight_server import weight_server


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'run' / 'epoch_1.pth'
    path.parent.mkdir()
    meta = dict(epoch=1, iter=5, seed=7, time='20260101_000000')
    parts = dict(meta=meta, state_dict={}, message_hub={}, optimizer={})
    torch.save(parts, path)
    return path


def config(folder, **kwargs):
    return Config(dict(dict(work_dir=str(folder), resume=True), **kwargs))


def test_the_seed_of_the_first_run(checkpoint):
    cfg = config(checkpoint.parent)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        prepare_resume(cfg)
        prepare_resume(cfg)
    assert cfg.randomness.seed == 7 and cfg.resume and 'load_from' not in cfg
    cfg = config(checkpoint.parent, randomness=dict(seed=1, deterministic=True))
    with pytest.warns(UserWarning, match='The seed 1 gives way to 7'):
        prepare_resume(cfg)
    assert cfg.randomness == dict(seed=7, deterministic=True)


def test_a_named_checkpoint(checkpoint, tmp_path):
    cfg = config(tmp_path / 'another', load_from=str(checkpoint))
    prepare_resume(cfg)
    assert cfg.randomness.seed == 7
    cfg.load_from = str(tmp_path / 'missing.pth')
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        prepare_resume(cfg)
    torch.save(dict(weight=torch.ones(1)), tmp_path / 'missing.pth')
    with pytest.raises(ValueError, match='plain weights'):
        prepare_resume(cfg)


def test_a_named_checkpoint_that_lacks_a_state(checkpoint):
    """As far as the config has it, and changes are not allowed."""
    schedule = [dict(type='MultiStepLR', milestones=[1])]
    cfg = config(checkpoint.parent, load_from=str(checkpoint))
    prepare_resume(cfg)
    cfg.param_scheduler = schedule
    with pytest.raises(ValueError, match='lacks the state of the schedule'):
        prepare_resume(cfg)
    cfg = config(checkpoint.parent, load_from=str(checkpoint), param_scheduler=schedule)
    cfg.default_hooks = dict(provenance=dict(allow_changes=True))
    prepare_resume(cfg)
    assert cfg.randomness.seed == 7


RESTARTS = ('SLURM_RESTART_COUNT', 'TORCHELASTIC_RESTART_COUNT')


@pytest.mark.parametrize('place', ['option', 'config', 'override'])
@pytest.mark.parametrize('variable', RESTARTS)
def test_a_named_checkpoint_in_a_job_that_is_started_again(
    variable, place, checkpoint, tmp_path, monkeypatch
):
    """Named by `--resume`, by the config itself, or by `--cfg-options`."""
    for name in RESTARTS:
        monkeypatch.delenv(name, raising=False)
    parts = torch.load(checkpoint)
    work_dir = tmp_path / 'new'
    work_dir.mkdir()

    def taken():
        named = dict(resume=True, load_from=str(checkpoint))
        cfg = config(work_dir, **(named if place == 'config' else dict(resume=False)))
        options = dict(
            option=dict(resume=str(checkpoint)),
            override=dict(cfg_options=[f'{key}={named[key]}' for key in named]),
        )
        merge_train_options(cfg, **options.get(place, {}))
        prepare_resume(cfg)
        assert cfg.resume is True and cfg.randomness.seed == 7
        return cfg.load_from

    def save(name, **meta):
        torch.save(dict(parts, meta=dict(parts['meta'], **meta)), work_dir / name)
        return str(work_dir / name)

    later = save('epoch_2.pth', iter=10, time='20260101_000100')
    os.utime(later, (1, 1))
    # Started by a user, who wants to go back, and again before anything was saved.
    assert taken() == str(checkpoint)
    monkeypatch.setenv(variable, '1')
    assert taken() == str(checkpoint)
    save('epoch_2.pth', iter=10, time='20260101_000100')
    with pytest.warns(UserWarning, match='started once more.*epoch_2.pth, which is ne'):
        assert taken() == later
    # Of an earlier training.
    save('epoch_2.pth', iter=10, time='20251231_000000')
    assert taken() == str(checkpoint)
    torch.save(parts['state_dict'], checkpoint)
    with pytest.raises(ValueError, match='it is a file of plain weights'):
        taken()
    checkpoint.unlink()
    with pytest.warns(UserWarning, match='which is there, and .*epoch_1.pth is not'):
        assert taken() == later


def test_note_of_a_start_follows_no_link(checkpoint, tmp_path):
    (tmp_path / 'victim').write_text('mine')
    work_dir = tmp_path / 'new'
    work_dir.mkdir()
    for name in ('resumed_from.txt', 'resumed_from.txt.part'):
        (work_dir / name).symlink_to(tmp_path / 'victim')
    prepare_resume(config(work_dir, load_from=str(checkpoint)))
    assert (work_dir / 'resumed_from.txt').read_text() == str(checkpoint)
    assert (tmp_path / 'victim').read_text() == 'mine'


def test_a_refused_start_is_not_noted(checkpoint, tmp_path):
    """The job that was started from the one before may be started again."""
    work_dir = tmp_path / 'new'
    prepare_resume(config(work_dir, load_from=str(checkpoint)))
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        prepare_resume(config(work_dir, load_from=str(tmp_path / 'missing.pth')))
    assert (work_dir / 'resumed_from.txt').read_text() == str(checkpoint)


@pytest.fixture
def places(checkpoint, monkeypatch):
    """How the folder of the checkpoint is named; what the server was asked for."""
    home = checkpoint.parent
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.setenv('MMENGINE_HOME', str(home / 'cache'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(fetch, 'zoo_weights', lambda: zoo)
    with weight_server(home) as server:
        zoo = dict(good='~/epoch_1.pth', bad='~/bad.pth', student=f'{server.url}/s.pth')
        yield (lambda name: name.replace('URL', server.url)), server.requested


def spoil(folder):
    """Write a damaged checkpoint and a student file."""
    parts = torch.load(folder / 'epoch_1.pth')
    weights = torch.arange(1000.0)
    torch.save(dict(parts, state_dict=dict(weight=weights)), folder / 'bad.pth')
    content = bytearray((folder / 'bad.pth').read_bytes())
    content[content.index(weights.numpy().tobytes()) + 99] ^= 1
    (folder / 'bad.pth').write_bytes(content)
    torch.save(dict(meta=parts['meta'], state_dict={}), folder / 's.pth')


@pytest.mark.parametrize('name', ['~/bad.pth', 'URL/bad.pth', 'bad'])
@pytest.mark.parametrize('option', [True, False])
def test_a_damaged_checkpoint_however_it_is_named(
    name, option, checkpoint, tmp_path, places
):
    spoil(checkpoint.parent)
    name = places[0](name)
    cfg = config(tmp_path / 'new', load_from=name)
    if option:
        cfg = merge_train_options(config(tmp_path / 'new', resume=False), resume=name)
    given = name.replace('~', str(checkpoint.parent))
    match = f'--resume.*{re.escape(given)}.* is damaged: a checksum in it does not fit'
    with pytest.raises(ValueError, match=match):
        prepare_resume(cfg)
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('name', ['~/s.pth', 'URL/s.pth', 'student', 's3://a/s.pth'])
def test_a_student_file_however_it_is_named(
    name, checkpoint, tmp_path, places, monkeypatch
):
    """Also with --allow-changes. Nothing that is there has moved, or is noted."""
    spoil(checkpoint.parent)
    student = torch.load(checkpoint.parent / 's.pth')
    monkeypatch.setattr(fetch, 'load_from_store', lambda source: student)
    name = places[0](name)
    cfg = config(tmp_path / 'new', load_from=name)
    cfg.default_hooks = dict(provenance=dict(allow_changes=True))
    given = name.replace('~', str(checkpoint.parent))
    match = f'--resume {re.escape(given)}: it is a student file or published weights'
    with pytest.raises(ValueError, match=match):
        prepare_resume(cfg)
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('name', ['~/epoch_1.pth', 'URL/epoch_1.pth', 'good'])
def test_a_good_checkpoint_however_it_is_named(
    name, checkpoint, tmp_path, places, monkeypatch
):
    """Its file is fetched once, and a job that is started again knows it."""
    for variable in RESTARTS:
        monkeypatch.delenv(variable, raising=False)
    name, work_dir = places[0](name), tmp_path / 'new'

    def taken():
        cfg = config(work_dir, load_from=name)
        prepare_resume(cfg)
        assert cfg.randomness.seed == 7
        return cfg.load_from

    whole = name.replace('~', str(checkpoint.parent))
    assert taken() == whole
    noted = whole if '/' in whole else os.path.abspath(whole)
    assert (work_dir / 'resumed_from.txt').read_text() == noted
    parts = torch.load(checkpoint)
    parts['meta'].update(iter=10, time='20260101_000100')
    torch.save(parts, work_dir / 'epoch_2.pth')
    assert taken() == whole
    os.utime(work_dir / 'resumed_from.txt', (1, 1))
    monkeypatch.setenv(RESTARTS[0], '1')
    with pytest.warns(UserWarning, match='started once more.*epoch_2.pth, which is ne'):
        assert taken() == str(work_dir / 'epoch_2.pth')
    assert len(places[1]) == ('http' in name)


def test_a_checkpoint_in_a_store(checkpoint, tmp_path, monkeypatch):
    parts = torch.load(checkpoint)
    monkeypatch.setattr(fetch, 'load_from_store', lambda source: parts)
    cfg = config(tmp_path / 'new', load_from='s3://a/epoch_1.pth')
    prepare_resume(cfg)
    assert cfg.randomness.seed == 7
    cfg.param_scheduler = [dict(type='MultiStepLR', milestones=[1])]
    with pytest.raises(ValueError, match='s3://a/epoch_1.pth lacks the state of the s'):
        prepare_resume(cfg)


def test_a_start_that_cannot_be_noted(checkpoint, tmp_path):
    """Started again, it would begin at the named checkpoint once more."""
    (tmp_path / 'new' / 'resumed_from.txt').mkdir(parents=True)
    with pytest.raises(OSError, match='resumed_from.txt could not be written'):
        prepare_resume(config(tmp_path / 'new', load_from=str(checkpoint)))


def test_several_machines_that_may_be_started_again(checkpoint, tmp_path, monkeypatch):
    """Where every start resumes, the first one from what the config names."""
    monkeypatch.setenv('GROUP_WORLD_SIZE', '2')
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')
    named = dict(load_from=str(checkpoint))
    cfg = merge_train_options(config(tmp_path / 'new', **named))
    prepare_resume(cfg)
    assert cfg.resume is True and cfg.load_from == str(checkpoint)
    # These are weights to begin with.
    cfg = merge_train_options(config(tmp_path / 'other', resume=False, **named))
    with pytest.warns(UserWarning, match='beginning, from the weights of'):
        prepare_resume(cfg)
    assert cfg.resume is False and cfg.load_from == str(checkpoint)
    cfg = merge_train_options(config(checkpoint.parent))
    prepare_resume(cfg)
    assert cfg.resume is True and cfg.load_from is None


def test_a_job_that_is_started_again_keeps_its_checkpoints(
    checkpoint, tmp_path, monkeypatch
):
    """What was there before it has moved; what it saved is its own."""
    for name in RESTARTS:
        monkeypatch.delenv(name, raising=False)
    work_dir = tmp_path / 'new'
    work_dir.mkdir()
    (work_dir / 'epoch_9.pth').write_bytes(checkpoint.read_bytes())

    def start():
        cfg = merge_train_options(config(work_dir), resume=str(checkpoint))
        prepare_resume(cfg)
        clear_folders(cfg)
        return cfg.load_from

    assert start() == str(checkpoint)
    assert len(list(work_dir.glob('earlier_*/epoch_9.pth'))) == 1
    parts = torch.load(checkpoint)
    parts['meta'].update(iter=10, time='20260101_000100')
    torch.save(parts, work_dir / 'epoch_2.pth')
    monkeypatch.setenv(RESTARTS[0], '1')
    with pytest.warns(UserWarning, match='started once more'):
        assert start() == str(work_dir / 'epoch_2.pth')
    assert (work_dir / 'epoch_2.pth').is_file()
    assert len(list(work_dir.glob('earlier_*'))) == 1


def test_nothing_to_go_on_from(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    cfg = config(tmp_path)
    match = 'has no checkpoint to go on from.*beginning.*\n.*skipped: .*epoch_1.pth'
    with pytest.warns(UserWarning, match=match):
        prepare_resume(cfg)
    assert cfg.resume is False


@pytest.mark.parametrize('content', ['/gone/epoch_4.pth', 's3://gone/a.pth\x1b[2J'])
def test_the_last_checkpoint_is_gone(content, tmp_path):
    """With the disk that it lies on, for example; an empty file names none."""
    (tmp_path / 'last_checkpoint').write_text('')
    with pytest.warns(UserWarning, match='no checkpoint to go on from') as told:
        prepare_resume(config(tmp_path))
    assert 'last_checkpoint names' not in str(told[0].message)
    (tmp_path / 'last_checkpoint').write_text(content)
    match = r'\n- last_checkpoint names \S*gone/\S*, which is not there.*--resume PATH'
    with pytest.warns(UserWarning, match=match) as told:
        prepare_resume(config(tmp_path))
    assert '\x1b' not in str(told[0].message)


def test_what_it_starts_from_where_there_is_nothing_to_go_on_from(checkpoint, tmp_path):
    """`--resume` from the first start on, as jobs that may be requeued are started."""
    cfg = merge_train_options(
        config(tmp_path / 'new', load_from='weights.pth', resume=False), resume='auto'
    )
    with pytest.warns(UserWarning, match="beginning, from .* load_from='weights.pth'"):
        prepare_resume(cfg)
    assert not cfg.resume and cfg.load_from == 'weights.pth'
    cfg = config(checkpoint.parent, load_from='weights.pth', resume='auto')
    prepare_resume(cfg)
    assert cfg.resume is True and cfg.load_from is None and cfg.randomness.seed == 7


def test_checkpoints_in_a_store(tmp_path):
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir='s3://bucket'))
    settings = dict(resume='auto', load_from='weights.pth', default_hooks=hooks)
    cfg = config(tmp_path, **settings)
    with pytest.warns(UserWarning, match="from .* load_from='weights.pth'"):
        prepare_resume(cfg)
    assert not cfg.resume and cfg.load_from == 'weights.pth'
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/epoch_1.pth')
    cfg = config(tmp_path, **settings)
    prepare_resume(cfg)
    assert cfg.resume is True and cfg.load_from is None


def test_no_resume(tmp_path):
    cfg = config(tmp_path, resume=False)
    prepare_resume(cfg)
    assert 'randomness' not in cfg


def test_the_teacher_of_the_first_run(checkpoint, tmp_path, monkeypatch):
    """Where the first command line named another one than the config."""
    first, other = tmp_path / 'first.pth', tmp_path / 'other.pth'
    first.touch()

    def resumed(given=False, **teacher):
        parts = torch.load(checkpoint)
        parts['meta']['mmfakd'] = dict(teacher=teacher)
        torch.save(parts, checkpoint)
        model = dict(teacher_ckpt=str(other))
        cfg = config(checkpoint.parent, model=model, randomness=dict(seed=7))
        prepare_resume(cfg, given)
        return cfg.model.teacher_ckpt

    match = 'The teacher is the one that training began with, .*--teacher-ckpt'
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=match):
        assert resumed(source='first.pth', path=str(first)) == 'first.pth'
    monkeypatch.chdir('/')
    with pytest.warns(UserWarning, match=match):
        assert resumed(source='first.pth', path=str(first)) == str(first)
    with pytest.warns(UserWarning, match=match):
        assert resumed(source='resnet34', path=None) == 'resnet34'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert resumed(True, source='first.pth', path=str(first)) == str(other)
        assert resumed(source=str(other), path=str(other)) == str(other)
        # Gone.
        assert resumed(source='x.pth', path='/nowhere/x.pth') == str(other)


def test_the_teacher_of_the_first_run_in_place_of_that_of_a_zoo(checkpoint, tmp_path):
    """The first command line gave a file, and the config says pretrained=True."""
    own = tmp_path / 'own.pth'
    own.touch()

    def resumed(teacher, **told):
        parts = torch.load(checkpoint)
        parts['meta']['mmfakd'] = dict(teacher=told)
        torch.save(parts, checkpoint)
        model = {} if teacher is None else dict(teacher=teacher)
        cfg = config(checkpoint.parent, model=model, randomness=dict(seed=7))
        prepare_resume(cfg)
        return cfg.model.get('teacher_ckpt')

    zoo = dict(cfg_path='mmpretrain::a.py', pretrained=True)
    assert resumed(zoo, source=str(own), path=str(own)) == str(own)
    assert resumed(zoo, source='https://a.b/c.pth', path=None) is None
    assert resumed(zoo, source='x.pth', path='/nowhere/x.pth') is None
    assert resumed(None, source=str(own), path=str(own)) is None
