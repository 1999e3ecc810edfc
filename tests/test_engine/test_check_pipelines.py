# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Pipelines, and hooks that change them in the course of a training."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmfakd.datasets import UnlabelledImages
from mmfakd.engine.check_pipelines import check_switches, tell_pad

LABELS = dict(type='mmdet.LoadAnnotations', with_bbox=True)
LOAD = dict(type='LoadImageFromFile')
FLIP = dict(type='mmdet.RandomFlip', prob=0.5)
CROP = dict(type='mmdet.RandomCrop', crop_size=(2, 2))
PACK = dict(type='mmdet.PackDetInputs', meta_keys=())
PAD = dict(type='Pad', size=(8, 8))


class PipelineSwitch:
    """As mmdet's hook, with a pipeline that comes later."""

    def __init__(self, *transforms):
        self.switch_epoch, self.switch_pipeline = 2, list(transforms)


class ModeSwitch:
    skip_type_keys = ('Mosaic',)


class Labelled:
    """A data set with labels, if its pipeline loads them."""

    def __init__(self, *pipeline):
        self.pipeline = list(pipeline)

    def __getitem__(self, index):
        return dict(sample_idx=index)


class Mixed(Labelled):
    """As mmdet's MultiImageMixDataset; its own pipeline mixes."""

    def __init__(self, dataset):
        super().__init__(dict(type='Mosaic'))
        self.dataset = dataset

    def update_skip_type_keys(self, keys):
        self.skipped = keys


@pytest.fixture
def unlabelled(tmp_path):
    cv2.imwrite(str(tmp_path / '1.png'), np.zeros((4, 4, 3), np.uint8))
    return UnlabelledImages(str(tmp_path))


def test_hooks_that_act_on_mixtures(unlabelled):
    for labelled, cure in ((True, '.*, or wrap the'), (False, r'.*_hooks`\).$')):
        for dataset in (unlabelled, Labelled(LABELS)):
            with pytest.raises(ValueError, match=f'ModeSwitch would end {cure}'):
                check_switches([ModeSwitch()], dataset, labelled, 1)
        check_switches([ModeSwitch()], Mixed(Labelled(LABELS)), labelled, 1)


@pytest.mark.parametrize(
    ('transforms', 'why'),
    [
        ([LOAD, LABELS, CROP, PACK], 'it drops those without boxes'),
        ([LOAD, dict(type='mmdet.Mosaic')], 'AssertionError: '),
        ([dict(type='NoSuchTransform')], 'KeyError: .*NoSuchTransform'),
    ],
)
def test_pipelines_that_need_labels(transforms, why, unlabelled):
    switch = PipelineSwitch(*transforms)
    for dataset in (unlabelled, Mixed(unlabelled)):
        state = np.random.get_state()[1].copy()
        with pytest.raises(ValueError, match=rf'takes no image without.*\({why}'):
            check_switches([switch], dataset, labelled=False, epochs=3)
        assert np.array_equal(np.random.get_state()[1], state)
        check_switches([switch], dataset, labelled=True, epochs=3)
        # It acts after the last one.
        check_switches([switch], dataset, labelled=False, epochs=2)
    # There are labels, which the student's loss alone does not use.
    for dataset in (Labelled(LABELS), Labelled(PAD), Mixed(Labelled())):
        check_switches([switch], dataset, labelled=False, epochs=3)


def test_pipelines_that_need_none(unlabelled):
    hooks = [
        PipelineSwitch(LOAD, LABELS, FLIP, PACK),
        PipelineSwitch(LOAD, PACK),
        SimpleNamespace(),
        PipelineSwitch(),
    ]
    check_switches(hooks, unlabelled, labelled=False, epochs=3)


def test_pads():
    inner = dict(type='mmdet.RandomChoice', transforms=[[PAD], []])
    for pipeline in ([PAD], [dict(type='mmcv.Pad')], [inner]):
        said = tell_pad([], Mixed(Labelled(*pipeline)))
        assert said.startswith('ignore_padding=True, and the training pipeline has a P')
        assert said == tell_pad([PipelineSwitch(*pipeline)], Labelled())
    crops = dict(type='RandomCrop', padding=4)
    assert tell_pad([PipelineSwitch(LABELS)], Mixed(Labelled(crops))) == ''
