# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Descriptions of runs, what differs between two, and weights that do not fit."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.engine.provenance import (
    Difference,
    _precision,
    compare,
    describe_config,
    hash_weights,
    misfits,
    plain,
    table,
)


def test_plain_values():
    class Kind:
        pass

    given = dict(a=(1, [2.5, None]), b=Kind, c=nn.ReLU(), d=torch.Size([2]), e=True)
    assert plain(Config(dict(x=given)).x) == dict(
        a=[1, [2.5, None]], b='Kind', c='ReLU', d=[2], e=True
    )
    # In another process a set has another order.
    assert plain({'d', 'c', 'b', 'a'}) == ['a', 'b', 'c', 'd']


def test_hash_is_of_names_types_shapes_and_values():
    def net(norm=True):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2) if norm else nn.ReLU()
        )

    first = hash_weights(net())
    assert hash_weights(net().to(memory_format=torch.channels_last)) == first
    counted = net()
    counted[1].num_batches_tracked += 1
    assert hash_weights(counted) == first
    changed, renamed = net(), nn.Sequential()
    with torch.no_grad():
        changed[0].bias[0] += 1e-6
    renamed.other, renamed.norm = net()
    others = {hash_weights(m) for m in (changed, renamed, net().double(), net(False))}
    assert len(others) == 4 and first not in others
    assert len(hash_weights(net().bfloat16())) == 64


def description(**teacher):
    distiller = dict(
        type='D',
        student_levels=['a', 'b'],
        loss_weight=1.0,
        warmup=dict(end=5),
        losses=[dict(type='L', loss_weight=2.0), dict(type='M', tau=3)],
    )
    return dict(
        model=dict(teacher=dict(type='T', depth=50), distiller=distiller),
        optimizer=dict(type='SGD', lr=0.1),
        processes=1,
        versions=dict(torch='2.1'),
        teacher=dict(
            dict(source='t.pth', path='/t.pth', sha256='aa', input='identity'),
            **teacher,
        ),
    )


@pytest.mark.parametrize(
    ('path', 'value', 'decisive'),
    [
        ('model.distiller.student_levels', ['a'], True),
        ('model.distiller.losses', [dict(type='L', loss_weight=2.0)], True),
        ('model.distiller.losses.1.tau', 4, True),
        ('model.distiller.losses.0.loss_weight', 0.2, False),
        ('model.distiller.loss_weight', 0.1, False),
        ('model.distiller.warmup.end', 9, False),
        ('model.distiller.warmup', None, False),
        ('model.calculate_student_loss', False, True),
        ('model.teacher_preprocessor', dict(mean=[0]), True),
        ('model.channels_last', True, False),
        ('model.teacher.type', 'U', False),
        ('optimizer.type', 'AdamW', True),
        ('processes', 2, False),
        ('versions.torch', '2.11', False),
        ('teacher.source', 'u.pth', False),
        ('teacher.sha256', 'bb', True),
        ('teacher.input', 'scale=[2.0]', True),
    ],
)
def test_what_makes_another_training(path, value, decisive):
    then, now = description(), description()
    *parents, last = path.split('.')
    part = now
    for key in parents:
        part = part[int(key) if key.isdigit() else key]
    part[last] = value
    found = compare(then, now)
    assert found and {d.decisive for d in found} == {decisive}
    assert all(d.key.startswith(path) for d in found)
    # Plain values come back from a checkpoint as they were.
    assert compare(then, copy.deepcopy(then)) == []


def test_rate_and_place_are_no_differences():
    now = description(path='/elsewhere/t.pth')
    now['optimizer']['lr'] = 0.2
    assert compare(description(), now) == []


def test_what_the_teacher_sees_was_not_always_written_down():
    then = description()
    del then['teacher']['input']
    assert compare(then, description(input='scale=[2.0]')) == []


def test_teacher_of_unknown_weights_is_compared_by_its_config():
    now = description()
    now['model']['teacher']['depth'] = 101
    (found,) = compare(description(sha256=None), now)
    assert found == Difference('model.teacher.depth', '50', '101', True)
    # A description may say less.
    assert compare(dict(model=now['model']), now) == []
    assert 'another training' in table([found])


def test_distillation_and_plain_training():
    distilled = description()
    plain_one = {k: v for k, v in distilled.items() if k not in ('model', 'teacher')}
    (found,) = compare(plain_one, distilled)
    assert found == Difference('model', 'plain', 'a distillation', True)
    (found,) = compare(distilled, plain_one)
    assert found == Difference('model', 'a distillation', 'plain', True)
    # A checkpoint that says nothing may be of either.
    assert compare({}, distilled) == compare({}, plain_one) == []


def test_config_of_several_optimizers():
    part = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    cfg = Config(dict(optim_wrapper=dict(constructor='C', one=part, two=part)))
    kind = dict(type='SGD', lr=0.1)
    assert describe_config(cfg) == dict(optimizer=dict(one=kind, two=kind))
    other = copy.deepcopy(describe_config(cfg))
    other['optimizer']['two'] = dict(type='Adam', lr=0.2)
    found = compare(describe_config(cfg), other)
    assert found == [Difference('optimizer.two.type', 'SGD', 'Adam', True)]


def learning():
    """Config of a training in which there is something of all that is learned by."""
    return Config(
        dict(
            model=dict(
                type='A',
                distiller=dict(type='D'),
                architecture=dict(
                    type='S',
                    init_cfg=dict(type='Pretrained', checkpoint='a.pth'),
                    head=dict(loss=dict(type='L', loss_weight=1.0)),
                ),
            ),
            data_preprocessor=dict(mean=[0.5]),
            train_dataloader=dict(
                batch_size=8,
                num_workers=2,
                dataset=dict(
                    type='I',
                    data_root='/here',
                    ann_file='/here/boxes.json',
                    data_prefix=dict(img='/here/images'),
                    pipeline=[dict(type='F', prob=0.5)],
                ),
            ),
            optim_wrapper=dict(optimizer=dict(type='SGD'), clip_grad=dict(max_norm=35)),
            custom_hooks=[
                dict(type='EMAHook', momentum=0.1),
                dict(type='mmfakd.LearningPicturesHook', interval=1),
            ],
        )
    )


@pytest.mark.parametrize(
    ('change', 'keys'),
    [
        (
            {'model.architecture.head.loss.loss_weight': 0.0},
            ['student.head.loss.loss_weight'],
        ),
        (
            {'train_dataloader.dataset.pipeline': [dict(type='F', prob=1)]},
            ['data.dataset.pipeline.0.prob'],
        ),
        ({'data_preprocessor.mean': [0]}, ['preprocessor.mean']),
        ({'model.data_preprocessor': dict(mean=[0])}, ['preprocessor.mean']),
        (
            {'train_dataloader.dataset.ann_file': '/here/others.json'},
            ['data.dataset.ann_file'],
        ),
        ({'optim_wrapper.clip_grad': None}, ['clip_grad.max_norm']),
        ({'custom_hooks.0.momentum': 0.2}, ['hooks.EMAHook.momentum']),
        ({'custom_hooks': []}, ['hooks.EMAHook.type', 'hooks.EMAHook.momentum']),
        # Where things lie, how they are loaded, and what tells of itself.
        (
            {
                'model.architecture.init_cfg.checkpoint': 'b.pth',
                'train_dataloader.dataset.data_root': '/there',
                'train_dataloader.dataset.ann_file': '/there/boxes.json',
                'train_dataloader.dataset.data_prefix.img': 's3://there/images/',
                'train_dataloader.num_workers': 0,
                'train_dataloader.batch_size': 4,
                'custom_hooks.1.interval': 5,
            },
            [],
        ),
    ],
)
def test_what_else_is_learned_by_is_told(change, keys):
    now = learning()
    now.merge_from_dict(change)
    found = compare(describe_config(learning()), describe_config(now))
    assert sorted(d.key for d in found) == sorted(keys)
    assert not any(d.decisive for d in found)
    # Checkpoints of older versions say nothing of it.
    then = describe_config(learning())
    older = {key: then[key] for key in ('model', 'optimizer')}
    assert compare(older, describe_config(now)) == []


def test_each_of_two_hooks_of_one_type():
    before, now = learning(), learning()
    for cfg, first in ((before, 0.1), (now, 0.2)):
        cfg.custom_hooks = [dict(type='EMAHook', momentum=m) for m in (first, 0.3)]
    (found,) = compare(describe_config(before), describe_config(now))
    assert found.key == 'hooks.EMAHook.0.momentum'


PURE = """
import cv2
from mmengine.dataset import DefaultSampler
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmpretrain.datasets import CIFAR10, RandomFlip
from mmpretrain.models import ImageClassifier
from torch.nn import GELU
from torch.optim import SGD
model = dict(type=ImageClassifier, backbone=dict(act=GELU))
train_dataloader = dict(
    sampler=dict(type=DefaultSampler),
    dataset=dict(type=CIFAR10, pipeline=[dict(type=RandomFlip)]),
)
optim_wrapper = dict(optimizer=dict(type=SGD))
custom_hooks = [dict(type=EMAHook, ema_type=ExponentialMovingAverage)]
"""


def test_pure_python_configs_are_those_of_their_text(tmp_path):
    """Which a checkpoint and a work dir hold: a class has its modules there."""
    (tmp_path / 'pure.py').write_text(PURE)
    cfg = Config.fromfile(tmp_path / 'pure.py')
    now = describe_config(cfg)
    assert now['hooks'].keys() == {'EMAHook'}
    then = describe_config(read_config_text(cfg.pretty_text))
    assert then['student']['type'] == 'mmpretrain.models.ImageClassifier'
    assert compare(then, now) == compare(now, then) == []
    then['student']['type'] = 'mmpretrain.models.OtherClassifier'
    assert [d.key for d in compare(then, now)] == ['student.type']


def test_values_that_are_imported_stay_text_in_a_checkpoint(tmp_path):
    text = PURE.replace('type=RandomFlip', 'type=RandomFlip, how=[cv2.INTER_AREA]')
    (tmp_path / 'pure.py').write_text(text)
    data = describe_config(Config.fromfile(tmp_path / 'pure.py'))['data']
    (how,) = data['dataset']['pipeline'][0]['how']
    assert type(how) is str and 'INTER_AREA' in how


def test_objects_in_a_config_are_the_same_elsewhere():
    class Images:
        pass

    cfg = dict(model=dict(), train_dataloader=dict(dataset=Images()))
    told = describe_config(Config(cfg))['data']['dataset']
    assert 'Images' in told and '0x' not in told
    # One that was built from objects says nothing.
    assert describe_config(Config()) == {}


def test_misfits():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = model.state_dict()
    state.pop('1.num_batches_tracked')
    assert misfits(model, state) == {}
    assert misfits(model, {f'module.{k}': v for k, v in state.items()}) == {}
    state['2.bias'] = state.pop('0.bias')
    state['0.weight'] = torch.zeros(4, 2)
    assert misfits(model, state) == {
        'not in the checkpoint': ['0.bias'],
        'not in the model': ['2.bias'],
        'of another shape': ['0.weight [4, 2] in the checkpoint, [3, 2] in the model'],
    }


def test_model_may_know_older_keys():
    class Renamed(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict[f'{prefix}weight'] = state_dict.pop(f'{prefix}kernel')
            super()._load_from_state_dict(state_dict, prefix, *args)

    model = nn.Sequential(Renamed(2, 2))
    state = {'0.kernel': torch.ones(2, 2), '0.bias': torch.ones(2)}
    assert misfits(model, state) == {}


@pytest.mark.parametrize(
    ('wrapper', 'precision'),
    [
        (dict(), 'float32'),
        (dict(cast_dtype=torch.bfloat16), 'bfloat16'),
        # PyTorch's own choice.
        (dict(cast_dtype=None), 'float16'),
    ],
)
def test_precision_of_the_networks(wrapper, precision):
    assert _precision(SimpleNamespace(**wrapper)) == precision


def test_another_precision_is_told():
    told = compare(dict(precision='bfloat16'), dict(precision='float32'))
    assert told == [('precision', 'bfloat16', 'float32', False)]
    # Checkpoints of earlier versions do not say it.
    assert compare({}, dict(precision='float32')) == []
