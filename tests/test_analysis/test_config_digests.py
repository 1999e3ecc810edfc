# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Digests are equal where configs are."""

from mmengine.config import Config

from mmfakd.analysis.config_digests import config_digests, differing_keys


def test_order_and_kind_of_dict():
    one = dict(model=dict(type='A', sizes=(1, 2)), lr=0.1)
    other = Config(dict(lr=0.1, model=dict(sizes=[1, 2], type='A')))
    assert config_digests(one) == config_digests(dict(other))
    one, other = {2: 1, 'b': 3}, {'b': 3, 2: 1}
    assert config_digests(dict(a=one)) == config_digests(dict(a=other))


def test_differing_keys():
    one = config_digests(dict(a=1, b=dict(c=[dict(d=2)]), work_dir='x'), {'work_dir'})
    other = config_digests(dict(a=1, b=dict(c=[dict(d=3)]), e=None, work_dir='y'))
    assert differing_keys(one, one) == []
    assert differing_keys(one, other) == ['b', 'e', 'work_dir']
