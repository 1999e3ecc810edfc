# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is replaced for a time is put back, whatever is built beside."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from mmengine.registry import registry
from mmengine.utils import misc

from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.plain_files import plain_files_only
from mmfakd.model_zoo.registered_types import registered_types_only


def replaced():
    return [
        pickle.load,
        registry.get_object_from_string,
        registry.import_module,
        misc.import_module,
    ]


@pytest.mark.parametrize('context', [plain_files_only, registered_types_only])
def test_the_second_waits_for_the_first(context):
    before, entered = replaced(), threading.Event()

    def enter():
        with context():
            entered.set()

    with ThreadPoolExecutor(1) as pool:
        with context(), context():
            pool.submit(enter)
            assert not entered.wait(0.05)
        assert entered.wait(60)
    assert replaced() == before


def test_models_built_side_by_side():
    before = replaced()
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=512),
    )
    with ThreadPoolExecutor(3) as pool:
        built = pool.map(build_without_weights, [model] * 6, ['mmpretrain'] * 6)
        assert {type(one).__name__ for one in built} == {'ImageClassifier'}
    assert replaced() == before
