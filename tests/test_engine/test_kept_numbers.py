# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Real modules of mmdet go on with what they keep beside their state dict."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmfakd.compat import load_checkpoint_file
from mmfakd.engine import kept_numbers as module
from mmfakd.engine.kept_numbers import kept_numbers, restore_numbers

pytest.importorskip('mmdet.models')


def build(**cfg):
    """The module as a part of a model."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        return nn.ModuleDict(dict(head=MODELS.build(ConfigDict(cfg))))


def dynamic_head():
    """Dynamic R-CNN's: https://arxiv.org/abs/2004.06002."""
    thresholds = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5)
    dynamic = dict(iou_topk=75, beta_topk=10, update_iter_interval=100)
    box_head = dict(type='Shared2FCBBoxHead', in_channels=4, fc_out_channels=4)
    box_head.update(roi_feat_size=2, num_classes=3)
    return build(
        type='DynamicRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=2),
            out_channels=4,
            featmap_strides=[8],
        ),
        bbox_head=dict(box_head, loss_bbox=dict(type='SmoothL1Loss', beta=1.0)),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', **thresholds),
            sampler=dict(type='PseudoSampler'),
            dynamic_rcnn=dict(dynamic, initial_iou=0.4, initial_beta=1.0),
        ),
    )


def ddod_head(levels=2):
    anchors = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8)
    anchors.update(scales_per_octave=1, strides=[8, 16, 32][:levels])
    return build(
        type='DDODHead',
        num_classes=3,
        in_channels=4,
        stacked_convs=1,
        feat_channels=4,
        norm_cfg=None,
        use_dcn=False,
        anchor_generator=anchors,
        loss_iou=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )


def handed_on(model, other, tmp_path):
    """Let another model go on from a file."""
    file = tmp_path / 'position.pth'
    torch.save(dict(numbers=[kept_numbers(model)]), file)
    restore_numbers(other, load_checkpoint_file(file)['numbers'])
    return other.head


def test_thresholds_of_dynamic_rcnn(tmp_path):
    model, other = dynamic_head(), dynamic_head()
    head = model.head
    head.iou_history, head.beta_history = [np.mean([0.5, 0.7])], [0.25, 0.5]
    head.update_hyperparameters()
    head.iou_history, head.beta_history = [np.mean([0.2, 0.4])], [0.125]
    found = handed_on(model, other, tmp_path)
    assert (found.iou_history, found.beta_history) == ([pytest.approx(0.3)], [0.125])
    assigner = found.bbox_assigner
    for threshold in (assigner.pos_iou_thr, assigner.neg_iou_thr, assigner.min_pos_iou):
        assert threshold == pytest.approx(0.6)
    assert found.bbox_head.loss_bbox.beta == 0.375
    # The next ones, too, are made of all that was seen.
    found.iou_history.append(0.7)
    assert found.update_hyperparameters() == pytest.approx((0.5, 0.125))
    assert head.iou_history == [pytest.approx(0.3)]


def test_weights_of_levels_of_ddod(tmp_path):
    model, other = ddod_head(), ddod_head()
    labels = [torch.tensor([0, 1, 3]), torch.tensor([3, 2, 3])]
    assert model.head.calc_reweight_factor(labels) == pytest.approx([1, 2])
    found = handed_on(model, other, tmp_path)
    nothing = [torch.tensor([3]), torch.tensor([3])]
    assert found.calc_reweight_factor(nothing) == pytest.approx([1, 2])
    # With other levels they begin anew.
    fewer = handed_on(model, ddod_head(levels=3), tmp_path)
    assert fewer.cls_num_pos_samples_per_level == [0.0, 0.0, 0.0]


def test_each_process_has_its_own(monkeypatch):
    for rank, count in enumerate([5, 7, 5]):
        monkeypatch.setattr(module, 'get_rank', lambda rank=rank: rank)
        model = build(type='DropBlock', drop_prob=0.5, block_size=3)
        restore_numbers(model, [{'head.iter_cnt': 5}, {'head.iter_cnt': 7}])
        assert model.head.iter_cnt == count


def test_what_is_left_alone():
    """Classes of a user that have the name of a stock one, and older checkpoints."""

    class DropBlock(nn.Module):
        iter_cnt = object()

    assert kept_numbers(DropBlock()) == {}
    model = build(type='DropBlock', drop_prob=0.5, block_size=3)
    for processes in ([], [{}], [{'other.iter_cnt': 5}]):
        restore_numbers(model, processes)
    assert model.head.iter_cnt == 0
