# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's other runner is refused where training starts."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from mmfakd.engine.launch import train
from mmfakd.engine.runner_kind import check_runner

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/fakd/digits'


@pytest.mark.parametrize(
    'kind', ['FlexibleRunner', 'mmengine.FlexibleRunner', FlexibleRunner]
)
def test_flexible_runner_is_refused(kind):
    with pytest.raises(ValueError, match='Remove `runner_type` and `strategy`'):
        check_runner(kind)


@pytest.mark.parametrize('kind', [None, 'Runner', Runner, type('Mine', (Runner,), {})])
def test_others_are_not(kind):
    check_runner(kind)


def test_command_says_so_before_anything_is_built(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'r18w4_1xb50_digits.py')
    cfg.runner_type = 'FlexibleRunner'
    cfg.strategy = dict(type='FSDPStrategy')
    cfg.dump(tmp_path / 'config.py')
    with pytest.raises(ValueError, match='expected MMEngine.s Runner'):
        train(str(tmp_path / 'config.py'))
