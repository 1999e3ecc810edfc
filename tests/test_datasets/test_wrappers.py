# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Configs of data sets within data sets."""

import pytest
from mmengine.config import Config, ConfigDict

from mmfakd.datasets.wrappers import walk_wrappers
from mmfakd.model_zoo.find import config_file

INNER = dict(type='Digits', split='train')


REPEAT = dict(type='Repeat', times=3, dataset=INNER)


@pytest.mark.parametrize(
    ('dataset', 'types'),
    [
        (None, []),
        (INNER, ['Digits']),
        (REPEAT, ['Repeat', 'Digits']),
        (dict(type='Concat', datasets=[INNER, REPEAT]), ['Concat', 'Digits']),
        (dict(type='Concat', datasets=(REPEAT,)), ['Concat', 'Repeat', 'Digits']),
        (dict(type='Concat', datasets=[]), ['Concat']),
        (dict(type='Balanced', dataset=REPEAT), ['Balanced', 'Repeat', 'Digits']),
        (dict(type='Built', dataset=object()), ['Built']),
    ],
)
def test_from_the_outermost_in(dataset, types):
    assert [config['type'] for config in walk_wrappers(dataset)] == types
    if dataset is not None:
        walked = walk_wrappers(ConfigDict(dataset))
        assert [config.type for config in walked] == types


def test_pipeline_of_a_config_is_found_and_can_be_changed():
    cfg = Config.fromfile(config_file('r18w4_1xb50_digits'))
    *wrappers, dataset = walk_wrappers(cfg.train_dataloader.dataset)
    assert [wrapper.type for wrapper in wrappers] == ['RepeatDataset']
    assert dataset.type == 'mmfakd.Digits'
    dataset.pipeline = []
    assert cfg.train_dataloader.dataset.dataset.pipeline == []
