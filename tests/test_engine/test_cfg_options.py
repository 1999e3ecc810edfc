# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is given as `--cfg-options`: read, merged, or refused in words."""

import re
import sys

import pytest
from mmengine.config import Config

from mmfakd.engine.cfg_options import merge_cfg_options, parse_cfg_options

CONFIG = dict(levels=[1, 2], model=dict(backbone=dict(depth=18)))
EMA = dict(type='EMAHook', momentum=0.1)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1', 1),
        ('', ''),
        ('None', None),
        ("'x=y'", 'x=y'),
        # A path is one text, in quotes even with a comma.
        ('a run/b.pth', 'a run/b.pth'),
        ('"b, ä.pth"', 'b, ä.pth'),
        ("'a,b'", 'a,b'),
        (r'"C:\new, x.pth"', r'C:\new, x.pth'),
        # As before, where a shell has left the quotes.
        ('"[1,2]"', [1, 2]),
        ('"1,2"', [1, 2]),
        ("'0.9, 0.999'", [0.9, 0.999]),
        ('"(a,b)"', ('a', 'b')),
        ('"3"', 3),
        ('"None"', None),
        ('"a","b"', ['a', 'b']),
        ('""', ''),
        ('[1,2]', [1, 2]),
        ('1,b', [1, 'b']),
        ('[(a,1),[True]]', [('a', 1), [True]]),
        # Files and templates are words.
        ('epoch_(1).pth', 'epoch_(1).pth'),
        ('{{fileDirname}}/a.pth', '{{fileDirname}}/a.pth'),
        ('[dict(type="EMAHook", momentum=0.1)]', [EMA]),
        ("({'type': 'EMAHook', 'momentum': .1},)", (EMA,)),
        ('dict(a=[1, dict(b=None)])', dict(a=[1, dict(b=None)])),
        ('{}', {}),
    ],
)
def test_values(text, value):
    assert parse_cfg_options([f'a.b={text}', 'c=1']) == {'a.b': value, 'c': 1}


def test_none():
    assert parse_cfg_options(None) == parse_cfg_options([]) == {}


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('[1,2', 'brackets that close'),
        ('(1,2]', 'brackets that close'),
        ('(1,2),(3,4)', 'in brackets'),
        ('[a(1,2)]', 'in brackets'),
        # What a shell leaves of quotes.
        ('[dict(type=EMAHook)]', 'words within a dict in quotes'),
        ('{type:EMAHook,momentum:0.1}', 'words within a dict in quotes'),
        ('dict(type=__import__("os").getcwd())', 'words within a dict in quotes'),
    ],
)
def test_what_cannot_be_read(text, expected):
    before = sys.getrecursionlimit()
    # As mmrazor leaves it: the stack would overflow.
    sys.setrecursionlimit(2**20)
    try:
        with pytest.raises(ValueError) as error:
            parse_cfg_options([f'hooks={text}'])
    finally:
        sys.setrecursionlimit(before)
    assert str(error.value).startswith(f'--cfg-options hooks={text}: cannot be read')
    assert expected in str(error.value)


def test_dicts_join_those_of_the_config():
    cfg = Config(CONFIG)
    merge_cfg_options(cfg, ['model.backbone=dict(width=4)', 'hooks=[dict(a=1)]'])
    assert cfg.model.backbone == dict(depth=18, width=4)
    assert cfg.hooks == [dict(a=1)]


@pytest.mark.parametrize('before', [1.0, 'balance', None])
def test_dicts_take_the_place_of_what_is_none(before):
    cfg = Config(dict(CONFIG, weight=before, heads=[dict(weight=before)]))
    pairs = ['weight=dict(type="balance")', 'weight.ratio=1', 'new=dict(a=1)']
    merge_cfg_options(cfg, [*pairs, 'heads.0.weight=dict(a=1)'])
    assert cfg.weight == dict(type='balance', ratio=1)
    assert cfg.new == dict(a=1) and cfg.heads == [dict(weight=dict(a=1))]


FLIP = dict(type='Flip', prob=[1])
LISTS = dict(
    model=dict(names=['a', 'b', 'c'], sizes=(1, 2), grid=[[1, 2], (3, 4)], none=[]),
    pipeline=[dict(type='Resize', scale=(32, 32), only=[1]), dict(type='Pack')],
    tta=[[dict(type='Flip', prob=[0.5])], [dict(type='Pack')]],
    # As levels may be.
    mixed=[1, dict(a=1)],
    both=(dict(a=1), 2),
)


@pytest.mark.parametrize(
    ('pairs', 'key', 'value'),
    [
        (['model.names.0=x.y'], 'model.names', ['x.y', 'b', 'c']),
        (['model.names.0=x', 'model.names.2=z'], 'model.names', ['x', 'b', 'z']),
        (['model.names=[p,q]', 'model.names.1=x'], 'model.names', ['p', 'x']),
        (['model.names.1=x', 'model.names=[p,q]'], 'model.names', ['p', 'q']),
        (['model.names.1=dict(a=1)'], 'model.names', ['a', dict(a=1), 'c']),
        (['model.names.1=None'], 'model.names', ['a', None, 'c']),
        (['model.sizes.1=5'], 'model.sizes', (1, 5)),
        (
            ['model.grid.0.1=7', 'model.grid.1.0=8', 'model.grid.0.0=9'],
            'model.grid',
            [[9, 7], (8, 4)],
        ),
        (['model.grid.1=[]'], 'model.grid', [[1, 2], []]),
        (
            ['pipeline.0.scale.1=64', 'pipeline.0.only.0=2', 'pipeline.1.type=X'],
            'pipeline',
            [dict(type='Resize', scale=(32, 64), only=[2]), dict(type='X')],
        ),
        (
            ['tta.0.0.prob.0=1', 'tta.1.0.type=X'],
            'tta',
            [[dict(type='Flip', prob=[1])], [dict(type='X')]],
        ),
        (['mixed.1.a=2'], 'mixed', [1, dict(a=2)]),
        (['mixed.0=z', 'mixed.1.a=2'], 'mixed', ['z', dict(a=2)]),
        (['mixed.1=z', 'mixed.0=dict(a=3)'], 'mixed', [dict(a=3), 'z']),
        (['mixed.1=dict(b=2)'], 'mixed', [1, dict(a=1, b=2)]),
        (['mixed.1=dict(_delete_=True, b=2)'], 'mixed', [1, dict(b=2)]),
        (['mixed.1.b=2', 'mixed.1._delete_=True'], 'mixed', [1, dict(b=2)]),
        (['mixed.0._delete_=True', 'mixed.0.b=2'], 'mixed', [dict(b=2), dict(a=1)]),
        (['mixed=[dict(c=[1])]', 'mixed.0.c.0=3'], 'mixed', [dict(c=[3])]),
        (['mixed={"1": dict(a=2)}'], 'mixed', [1, dict(a=2)]),
        (['mixed={"0": 5, "1": dict(_delete_=True, b=2)}'], 'mixed', [5, dict(b=2)]),
        (['mixed={1: dict(b=2)}'], 'mixed', [1, dict(a=1, b=2)]),
        (['model.names={"0": "q", 2: "r"}'], 'model.names', ['q', 'b', 'r']),
        (['model.sizes={"1": 5}'], 'model.sizes', (1, 5)),
        (['tta.0={"0": dict(prob=[1])}'], 'tta', [[FLIP], [dict(type='Pack')]]),
        (['mixed=dict(a=2)'], 'mixed', dict(_delete_=True, a=2)),
        (['mixed={}'], 'mixed', dict(_delete_=True)),
        (['pipeline=dict()'], 'pipeline', dict(_delete_=True)),
        (['model.none={}'], 'model.none', dict(_delete_=True)),
        (['model.grid.0={}'], 'model.grid', [{}, (3, 4)]),
        (['model.grid.0=dict(a=1)'], 'model.grid', [dict(a=1), (3, 4)]),
        (['model.names.7=x', 'model.names=[p]'], 'model.names', ['p']),
        (['both.0.a=2', 'both.1=z'], 'both', (dict(a=2), 'z')),
    ],
)
def test_entries_of_lists(pairs, key, value):
    cfg = Config(LISTS)
    merge_cfg_options(cfg, pairs)
    expected = Config(LISTS)
    expected.merge_from_dict({key: value})
    assert cfg.to_dict() == expected.to_dict()


def test_entries_of_lists_in_an_option():
    """Not of the config's list, which the option replaces."""
    cfg = Config(LISTS)
    merge_cfg_options(cfg, ['model=dict(names=["x", "y"])', 'model.names.1=z'])
    assert cfg.model.names == ['x', 'z'] and cfg.model.sizes == (1, 2)
    merge_cfg_options(cfg, ['model=dict(grid=[[5]])', 'model.names.0=w'])
    assert cfg.model.names == ['w', 'z'] and cfg.model.grid == [[5]]


def test_a_list_that_becomes_a_dict():
    cfg = Config(LISTS)
    merge_cfg_options(cfg, ['model.names._delete_=True', 'model.names.a=1'])
    assert cfg.model.names == dict(a=1)


@pytest.mark.parametrize(
    ('pair', 'message'),
    [
        ('model.names.3=x', 'names is a list of 3, .* no entry 3; expected 0 to 2.'),
        ('model.names.-1=x', 'which has no entry -1; expected 0 to 2.'),
        ('model.names.x=1', 'which has no entry x; expected 0 to 2.'),
        ('mixed.2=x', 'mixed is a list of 2, which has no entry 2; expected 0 to 1.'),
        ('pipeline.-1.type=X', 'pipeline is a list of 2, which has no entry -1;'),
        ('pipeline.0.only.1=2', 'pipeline.0.only is a list of 1, .* no entry 1;'),
        ('model.grid.1.2=1', 'model.grid.1 is a tuple of 2, .*expected 0 to 1.'),
        ('model.none.0=1', 'expected a whole list, as it is empty'),
        ('model.names.0.1=1', "model.names.0 is 'a', .*give it as a whole"),
        ('mixed.0.a=1', 'mixed.0 is 2, which has no entries'),
        ('model.names={"7": "x"}', 'names is a list of 3, which has no entry 7;'),
        ('tta.0={"7": "x"}', 'tta.0 is a list of 1, which has no entry 7;'),
        ('pipeline.0.type.x=1', 'cannot inherit'),
        ('model=dict(names=dict(a=1))', 'does not fit .*`_delete_=True`'),
    ],
)
def test_entries_that_lists_do_not_have(pair, message):
    start = re.escape(f'--cfg-options {pair}: ')
    with pytest.raises(ValueError, match=f'^{start}.*{message}'):
        merge_cfg_options(Config(LISTS), ['mixed.0=2', pair])


@pytest.mark.parametrize(
    ('pair', 'message'),
    [
        ('=3', 'expected KEY=VALUE'),
        ('alone', 'expected KEY=VALUE'),
        ('levels.7=1', 'levels is a list of 2, which has no entry 7'),
        ('model.backbone.depth.x=1', 'cannot inherit'),
    ],
)
def test_overrides_that_do_not_fit(pair, message):
    with pytest.raises(ValueError, match=f'^--cfg-options {pair}: .*{message}'):
        merge_cfg_options(Config(CONFIG), [pair])
