# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Levels of fixed images: what is compared, and that nothing is changed."""

import copy
import random

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mmfakd.datasets.random_state import same_random_state
from mmfakd.models.distillers.any_distiller import missing_records
from mmfakd.pictures.level_maps import FixedImages, joined
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
    reviewkd_distiller,
    step,
)

LOGITS = dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc'))
KD = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=LOGITS,
    teacher_recorders=copy.deepcopy(LOGITS),
    distill_losses=dict(loss_kl=dict(type='mmrazor.KLDivergence')),
    loss_forward_mappings=dict(
        loss_kl=dict(
            preds_S=dict(recorder='fc', from_student=True),
            preds_T=dict(recorder='fc', from_student=False),
        )
    ),
)
LEVELS = dict(
    type='mmfakd.LevelDistiller',
    student_levels=['backbone.layer1', 'backbone.layer2'],
    teacher_levels=['backbone.layer1', 'backbone.layer2'],
    level_loss=dict(type='mmrazor.ATLoss'),
)


def test_what_is_compared():
    """The features whose distance the loss is, in evaluation mode."""
    model = feature_distill().eval()
    samples = batch()
    inputs, levels = FixedImages(model, samples).look()
    data = model.data_preprocessor(samples, False)
    losses = model.loss(data['inputs'], data['data_samples'])
    assert torch.equal(inputs, data['inputs'])
    assert [level.name for level in levels] == [f'loss_level{i}' for i in range(4)]
    assert levels[1].title == 'level1: backbone.layer2'
    for i, level in enumerate(levels):
        apart = (level.prediction - level.teacher).square().mean()
        loss = losses[f'distill.loss_level{i}'].item()
        assert apart.item() == pytest.approx(loss)
        assert level.comparable and level.is_map == (i < 3)
        transform = model.distiller.connectors.review.levels[i].transform
        assert level.filter is (transform if i < 3 else None)
    assert levels[0].student.shape == (4, 4, 8, 8)


def test_nothing_is_changed():
    model = feature_distill()
    step(model, batch())
    model.architecture.backbone.layer1.eval()
    modes = {name: m.training for name, m in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    samples = batch()
    torch.set_rng_state(drawn[0])
    kept = copy.deepcopy(samples)
    for _ in range(2):
        FixedImages(model, samples).look()
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert all(torch.equal(model.state_dict()[k], v) for k, v in state.items())
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert np.random.get_state()[1].tolist() == drawn[2]
    assert torch.equal(samples['inputs'], kept['inputs'])
    # No record stays, which a copy of the model would stumble over.
    assert missing_records(model.distiller) == [
        'backbone.layer1',
        'backbone.layer2',
        'backbone.layer3',
        'neck.gap',
    ]
    copy.deepcopy(model)


@pytest.mark.parametrize(
    ('distiller', 'names', 'filters'),
    [
        (layer_distiller(), ['loss_fam'], 1),
        (reviewkd_distiller(), [f'loss_level{i}' for i in range(4)], 0),
        (KD, ['loss_kl'], 0),
        (LEVELS, ['loss_level0', 'loss_level1'], 0),
    ],
    ids=['mapping', 'reviewkd', 'logits', 'levels'],
)
def test_other_distillers(distiller, names, filters):
    model = feature_distill(distiller=copy.deepcopy(distiller))
    _, levels = FixedImages(model, batch()).look()
    assert [level.name for level in levels] == names
    assert sum(level.filter is not None for level in levels) == filters
    for level in levels:
        numbers = level.scalars()
        assert numbers['teacher_low'] > 0
        # Features of other channels are not subtracted.
        assert ('gap_low' in numbers) == level.comparable


def test_images_without_labels():
    from mmpretrain.structures import DataSample

    model = feature_distill(calculate_student_loss=False)
    samples = dict(batch(), data_samples=[DataSample() for _ in range(4)])
    _, levels = FixedImages(model, samples).look()
    assert len(levels) == 4
    # As in training, which goes on.
    losses_of(model, samples)


def test_algorithms_of_mmrazor():
    cfg = dict(
        type='mmrazor.SingleTeacherDistill',
        architecture=classifier(),
        teacher=classifier(width=8),
        distiller=layer_distiller(),
    )
    model = MODELS.build(ConfigDict(cfg))
    _, levels = FixedImages(model, batch()).look()
    assert [level.name for level in levels] == ['loss_fam']
    assert levels[0].filter is model.distiller.connectors.fam.level.transform


def test_detectors():
    from tests.helpers.toy_detectors import (
        detection_batch,
        pyramid_distiller,
        retinanet,
    )

    model = feature_distill(
        architecture=retinanet(),
        teacher=retinanet(width=16),
        distiller=pyramid_distiller(),
    )
    samples = detection_batch((64, 96), (60, 80))
    for sample in samples['data_samples']:
        del sample.gt_instances
    inputs, levels = FixedImages(model, samples).look()
    assert inputs.shape == (2, 3, 64, 96)
    assert [tuple(level.teacher.shape[-2:]) for level in levels] == [
        (8, 12),
        (4, 6),
        (2, 3),
    ]


def test_batches_are_joined():
    model = feature_distill()
    looks = [FixedImages(model, batch(count)).look()[1] for count in (2, 3)]
    levels = joined(looks)
    assert [len(level.teacher) for level in levels] == [5] * 4
    assert torch.equal(levels[2].student[2:], looks[1][2].student)


def test_random_numbers_of_all_generators():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    with same_random_state():
        first = draw()
    with pytest.raises(KeyError), same_random_state():
        draw()
        raise KeyError
    assert draw() == first
