# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Rows of equal shape that are of different boxes or objects are told apart."""

import copy
import logging
from functools import cache

import pytest
import torch
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')

from mmfakd.models.algorithms import FeatureDistill

TWO_STAGE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
SPARSE = 'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py'
MIXED = 'mmdet::htc/htc_r50_fpn_1x_coco.py'
DETR = 'mmdet::detr/detr_r18_8xb2-500e_coco.py'
MASKED = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'


@pytest.fixture
def told():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@cache
def models_of(path):
    """Student and teacher; nothing runs, as names and classes tell."""
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(get_config(path).model)
    model.data_preprocessor = BaseDataPreprocessor()
    return model, copy.deepcopy(model)


def distilled(path, layer, kind='ModuleOutputs', **distiller):
    recorder = dict(type=f'mmrazor.{kind}', source=layer)
    model = FeatureDistill(
        *models_of(path),
        dict(
            type='mmrazor.ConfigurableDistiller',
            student_recorders=dict(a=recorder),
            teacher_recorders=dict(a=copy.deepcopy(recorder)),
            distill_losses=dict(loss=dict(type='mmrazor.L2Loss')),
            loss_forward_mappings=dict(
                loss=dict(
                    s_feature=dict(recorder='a', from_student=True),
                    t_feature=dict(recorder='a', from_student=False),
                )
            ),
            **distiller,
        ),
    )
    init_default_scope('mmfakd')
    return model


@pytest.mark.parametrize(
    ('path', 'layer'),
    [
        (TWO_STAGE, 'roi_head.bbox_head.fc_cls'),
        (TWO_STAGE, 'roi_head.bbox_roi_extractor'),
        (MIXED, 'roi_head.mask_head.2.convs.0'),
        (SPARSE, 'roi_head.bbox_head.5'),
    ],
)
def test_regions_are_refused(path, layer):
    with pytest.raises(ValueError, match='of different boxes') as caught:
        distilled(path, layer)
    assert str(caught.value).startswith(
        f'loss compares {layer!r} of the student with {layer!r} of the teacher, '
        'features of regions: '
    )
    assert 'Record what is of the whole image' in str(caught.value)


@pytest.mark.parametrize(
    ('path', 'layer', 'kind'),
    [
        (TWO_STAGE, 'neck', 'ModuleOutputs'),
        (TWO_STAGE, 'rpn_head.rpn_cls', 'ModuleOutputs'),
        (TWO_STAGE, 'roi_head.bbox_head.fc_cls.weight', 'Parameter'),
        (MIXED, 'roi_head.semantic_head.conv_logits', 'ModuleOutputs'),
        (DETR, 'encoder', 'ModuleOutputs'),
        (DETR, 'neck', 'ModuleOutputs'),
        (MASKED, 'panoptic_head.pixel_decoder', 'ModuleOutputs'),
    ],
)
def test_what_is_of_the_whole_image(path, layer, kind, told):
    distilled(path, layer, kind)
    assert not [text for text in told if 'row by row' in text]


def test_shared_regions():
    delivery = dict(
        type='MethodOutputs',
        max_keep_data=1,
        method_path='mmdet.models.roi_heads.standard_roi_head.StandardRoIHead.loss',
    )
    distilled(
        TWO_STAGE,
        'roi_head.bbox_head.fc_cls',
        distill_deliveries=dict(boxes=delivery),
    )


@pytest.mark.parametrize(
    ('path', 'layer'),
    [
        (DETR, 'decoder.layers.5'),
        (DETR, 'bbox_head.fc_cls'),
        (MASKED, 'panoptic_head.transformer_decoder'),
        (MASKED, 'panoptic_head.cls_embed'),
    ],
)
def test_queries_are_told(path, layer, told):
    distilled(path, layer)
    (text,) = [text for text in told if 'row by row' in text]
    assert 'object queries' in text and repr(layer) in text
