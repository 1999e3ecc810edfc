# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The text of a config is what MMEngine writes, laid out once."""

from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from yapf.yapflib import yapf_api
from yapf.yapflib.yapf_api import FormatCode

from mmfakd.compat import config_formatting, remember_formatted_configs
from tests.helpers.plain_configs import formatted_with


def plain_text(cfg):
    """What MMEngine writes without the shim."""
    return Config.pretty_text.fget.__wrapped__(cfg)


@pytest.fixture(autouse=True)
def yapf():
    """The real one, which other tests go without."""
    with formatted_with(FormatCode):
        yield


@pytest.fixture
def layouts():
    """The calls of yapf."""
    with mock.patch.object(
        yapf_api, 'FormatTree', side_effect=yapf_api.FormatTree
    ) as calls:
        yield calls


def test_same_content_is_laid_out_once(layouts):
    cfg = Config(dict(model=dict(type='A', sizes=[1, 2]), name="it's"))
    text = cfg.pretty_text
    assert layouts.call_count == 1
    assert Config(cfg.to_dict()).pretty_text == cfg.pretty_text == text
    assert layouts.call_count == 1
    assert text == plain_text(cfg)


@pytest.mark.parametrize(
    'change',
    [
        lambda cfg: cfg.model.update(type='B'),
        lambda cfg: cfg.model.sizes.append(3),
        lambda cfg: cfg.merge_from_dict({'model.sizes': (1, 2)}),
        lambda cfg: setattr(cfg, 'zero', -0.0),
    ],
)
def test_another_content_has_another_text(change):
    cfg = Config(dict(model=dict(type='A', sizes=[1, 2]), name='b', zero=0.0))
    before = cfg.pretty_text
    change(cfg)
    assert cfg.pretty_text == plain_text(cfg) != before


def test_text_without_layout():
    """Of a config that asks for none."""
    content = dict(model=dict(type='A'))
    laid_out = Config(content).pretty_text
    cfg = Config(content, format_python_code=False)
    assert cfg.pretty_text == plain_text(cfg) != laid_out


def test_inherited_and_new_style_configs(tmp_path):
    cfg = get_config('mmfakd::fakd/digits/fakd_review_r18w32_r18w4_1xb50_digits.py')
    assert cfg.pretty_text == plain_text(cfg)
    file = tmp_path / 'new.py'
    file.write_text(
        'from torch.optim import SGD\noptim_wrapper = dict(optimizer=dict(type=SGD))\n'
    )
    cfg = Config.fromfile(file, lazy_import=True)
    assert cfg.pretty_text == plain_text(cfg)
    assert "'torch.optim.SGD'" in cfg.pretty_text


def test_few_are_kept(layouts):
    configs = [Config(dict(a=i)) for i in range(config_formatting._KEPT + 1)]
    for cfg in [*configs, configs[-1]]:
        assert cfg.pretty_text
    assert layouts.call_count == len(configs)
    # The first one went.
    assert configs[0].pretty_text and layouts.call_count == len(configs) + 1


def test_applied_once():
    before = Config.pretty_text
    remember_formatted_configs()
    assert Config.pretty_text is before
