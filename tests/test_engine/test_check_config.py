# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Mistakes that are told before anything is built."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmfakd import cli
from mmfakd.engine import check_config
from mmfakd.engine.cfg_options import merge_cfg_options
from mmfakd.engine.check_config import (
    check_sources,
    check_training,
    check_weights,
    tell_starts,
)
from mmfakd.engine.launch import merge_train_options, train
from tests.helpers.toy import classifier

PAIR = 'fakd_review_r18w32_r18w4_1xb50_digits'


@pytest.fixture(autouse=True)
def local_rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


@pytest.fixture
def told(monkeypatch):
    texts = []
    monkeypatch.setattr(
        check_config, 'print_log', lambda text, **kwargs: texts.append(text)
    )
    return texts


def config(**kwargs):
    cfg = dict(
        model=classifier(),
        train_dataloader=dict(batch_size=4, dataset=dict(type='mmfakd.Digits')),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_scope='mmpretrain',
        **kwargs,
    )
    return Config(cfg)


# ---- overrides


@pytest.mark.parametrize(
    ('key', 'missing', 'near'),
    [
        ('optim_wraper.optimizer.lr', 'optim_wraper', 'optim_wrapper'),
        ('optim_wraper.optimizer.lr', 'optim_wraper', 'optim_wrapper.optimizer.lr'),
        ('lr', 'lr', 'optim_wrapper.optimizer.lr'),
        ('work_dirr', 'work_dirr', 'work_dir'),
        ('train_cfg.max_epoch', 'train_cfg.max_epoch', 'train_cfg.max_epochs'),
        (
            'train_dataloader.batchsize',
            'train_dataloader.batchsize',
            'train_dataloader.batch_size',
        ),
        ('model.backbon.depth', 'model.backbon', 'model.backbone'),
    ],
)
def test_override_of_nothing(key, missing, near, told):
    merge_cfg_options(config(), [f'{key}=1'])
    (text,) = told
    assert text.startswith(f'--cfg-options {key}: the config has no {missing}, and')
    assert f'{near!r}' in text.partition('Near keys: ')[2]


@pytest.mark.parametrize(
    'key',
    [
        'optim_wrapper.optimizer.lr',
        'optim_wrapper.clip_grad.max_norm',
        'work_dir',
        'load_from',
        'randomness.seed',
        'model.backbone.frozen_stages',
        'auto_scale_lr.enable',
    ],
)
def test_overrides_that_are_right(key, told):
    merge_cfg_options(config(), [f'{key}=1'])
    assert told == []


# ---- options


@pytest.mark.parametrize('name', ['teacher_ckpt', 'student_ckpt'])
@pytest.mark.parametrize('value', ['', '  '])
def test_empty_weights(name, value):
    option = f'--{name.replace("_", "-")}'
    with pytest.raises(ValueError, match=f'{option} is empty; give a path, a URL'):
        train(PAIR, **{name: value})


def test_folder_for_weights(tmp_path):
    with pytest.raises(ValueError, match='it is a folder; give a file in it'):
        check_weights(teacher_ckpt=str(tmp_path))
    check_weights(teacher_ckpt=None, student_ckpt='https://example.com/a.pth')


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_seed(seed):
    with pytest.raises(ValueError, match=f'The seed is {seed}; .* 0 to 4294967295'):
        check_training(merge_train_options(config(work_dir='here'), seed=seed))


def test_empty_work_dir():
    with pytest.raises(ValueError, match='--work-dir is empty; give a folder'):
        train(PAIR, work_dir=' ')


@pytest.mark.parametrize('key', ['load_from', 'teacher_ckpt', 'student_ckpt'])
def test_weights_that_are_no_text(key, tmp_path):
    name = key if key == 'load_from' else f'model.{key}'
    for value, message in {
        (f'{name}=b, ä.pth',): f"{name} is .'b', 'ä.pth'.; .*'{name}=\"b, ä.pth\"'",
        (f'{name}=True',): f'{name} is True; expected a path',
    }.items():
        with pytest.raises(ValueError, match=message):
            train(PAIR, work_dir=str(tmp_path), cfg_options=value)
    if key == 'teacher_ckpt':
        with pytest.raises(SystemExit, match=f'{PAIR}: {name} is .*quotes within'):
            cli.main(['check-teacher', PAIR, '--cfg-options', f'{name}=b, ä.pth'])


def test_weights_that_are_texts():
    for value in (None, 'b, ä.pth', Path('a.pth')):
        cfg = config(load_from=value)
        cfg.model.update(teacher_ckpt=value, student_ckpt=value)
        check_sources(cfg)


@pytest.mark.parametrize('load_from', ['a.pth', None])
@pytest.mark.parametrize('student_ckpt', ['b.pth', None])
@pytest.mark.parametrize('resume', [True, False])
def test_two_starts_of_one_student(load_from, student_ckpt, resume, told):
    cfg = config(load_from=load_from, resume=resume)
    cfg.model.student_ckpt = student_ckpt
    tell_starts(cfg)
    if load_from and student_ckpt and not resume:
        (text,) = told
        assert "load_from='a.pth' is loaded after student_ckpt='b.pth'" in text
    else:
        assert told == []


def test_a_training_tells_of_two_starts(told, tmp_path):
    weights = dict(student_ckpt='b.pth', cfg_options=['load_from=a.pth'])
    assert callable(train(PAIR, work_dir=str(tmp_path), **weights))
    assert 'Leave out one of the two' in told[-1]


# ---- configs


def test_fine():
    check_training(config())


@pytest.mark.parametrize(
    ('model', 'got'),
    [(None, 'None'), ([], '[]'), ({}, 'one with only []'), (dict(a=1), "only ['a']")],
)
def test_no_model(model, got):
    cfg = config()
    cfg.model = model
    with pytest.raises(ValueError) as caught:
        check_training(cfg)
    assert str(caught.value).startswith('The config: the model is ')
    assert got in str(caught.value) and "dict(type='mmfakd.FeatureDistill'" in str(
        caught.value
    )


@pytest.mark.parametrize('value', [None, 'gone'])
@pytest.mark.parametrize('key', ['train_cfg', 'optim_wrapper', 'train_dataloader'])
def test_no_schedule(key, value):
    cfg = config()
    if value is None:
        cfg[key] = None
    else:
        cfg.pop(key)
    with pytest.raises(ValueError, match=f'has no {key}, which .* its `_base_`'):
        check_training(cfg)


def test_optimizer():
    cfg = config()
    cfg.optim_wrapper.optimizer.type = 'SDG'
    with pytest.raises(KeyError, match="'SDG' is not registered.*Near names: 'SGD"):
        check_training(cfg)


@pytest.mark.parametrize(
    ('place', 'key', 'near'),
    [
        ('train_cfg', 'max_epoch', 'max_epochs'),
        ('train_dataloader', 'batchsize', 'batch_size'),
    ],
)
def test_arguments_of_loop_and_loader(place, key, near):
    cfg = config()
    cfg[place][key] = 1
    with pytest.raises(ValueError, match=f'{place} got {key}=1, .* Near .*{near!r}'):
        check_training(cfg)


@pytest.mark.parametrize('key', ['max_epochs', 'val_interval'])
@pytest.mark.parametrize('value', [0, -1, 1.5, '3', float('nan'), float('inf')])
def test_length_of_the_training(key, value):
    cfg = config()
    cfg.train_cfg[key] = value
    message = f'train_cfg has {key}={value!r}; expected a whole number above 0.'
    with pytest.raises(ValueError, match=message.replace('.', r'\.')):
        check_training(cfg)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (
            dict(by_epoch=False, max_iters=4, max_epochs=3),
            r'iterations \(by_epoch=False\) and has max_epochs=3, .*_delete_=True',
        ),
        (
            dict(by_epoch=True, max_iters=4, max_epochs=3),
            r'counts epochs \(by_epoch=True\) and has max_iters=4, .*_delete_=True',
        ),
    ],
)
def test_length_in_the_units_of_the_other_loop(given, message):
    cfg = config()
    cfg.train_cfg = given
    with pytest.raises(ValueError, match=message):
        check_training(cfg)


@pytest.mark.parametrize('value', [1, 300, 3.0])
def test_usual_lengths(value):
    cfg = config()
    cfg.train_cfg = dict(by_epoch=False, max_iters=value, val_interval=value)
    check_training(cfg)


# ---- the environment


@pytest.mark.parametrize('mode', ['fastest', ''])
def test_unknown_ways_before_anything_is_built(mode, tmp_path, monkeypatch):
    """They were told in the first step, as a fault of the layer that computes first."""
    monkeypatch.setenv('MMFAKD_WAYS', mode)
    with pytest.raises(ValueError, match=f"^MMFAKD_WAYS='{mode}' in the environment; "):
        train(PAIR, work_dir=str(tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()
    with pytest.raises(SystemExit, match=f"^mmfakd check: .*MMFAKD_WAYS='{mode}'"):
        cli.main(['check', PAIR])


@pytest.mark.parametrize('mode', ['auto', 'measure', 'reference', None])
def test_known_ways(mode, monkeypatch):
    monkeypatch.delenv('MMFAKD_WAYS', raising=False)
    if mode is not None:
        monkeypatch.setenv('MMFAKD_WAYS', mode)
    check_training(config())
