# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is given as `--cfg-options`: read, merged, or refused in words."""

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


@pytest.mark.parametrize(
    ('pair', 'message'),
    [
        ('=3', 'expected KEY=VALUE'),
        ('alone', 'expected KEY=VALUE'),
        ('levels.7=1', 'Index 7 exceeds the length'),
        ('model.backbone.depth.x=1', 'cannot inherit'),
    ],
)
def test_overrides_that_do_not_fit(pair, message):
    with pytest.raises(ValueError, match=f'^--cfg-options {pair}: .*{message}'):
        merge_cfg_options(Config(CONFIG), [pair])
