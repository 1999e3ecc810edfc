# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Records that a network changes in place, and layers that run several times."""

import logging

import pytest
from mmengine.logging import MMLogger

from tests.helpers.toy import batch, classifier, feature_distill, losses_of, step

RELU = 'backbone.layer3.1.relu'


def levels(*layers):
    return dict(
        type='mmfakd.LevelDistiller',
        student_levels=list(layers),
        teacher_levels=list(layers),
        level_loss=dict(type='mmrazor.L2Loss'),
    )


@pytest.fixture
def told():
    """What the log says."""
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger = MMLogger.get_instance('changed_records_test')
    logger.addHandler(Lines())
    return lines


def build(*layers):
    return feature_distill(teacher=classifier(), distiller=levels(*layers))


def test_a_sum_in_place_is_told_once(told):
    """mmpretrain's blocks say `out += identity` behind their last norm."""
    model = build('backbone.layer3.1.bn2')
    step(model, batch())
    found = [text for text in told if 'changes this record in place' in text]
    assert [text.split(':')[0] for text in found] == [
        "teacher recorder 'backbone.layer3.1.bn2'",
        "student recorder 'backbone.layer3.1.bn2'",
    ]
    step(model, batch())
    assert sum('in place' in text for text in told) == 2
    hooks = model.architecture.backbone.layer3[1].bn2._forward_hooks
    assert len(hooks) == 1


@pytest.mark.parametrize(
    'layer',
    [
        'backbone.layer3.1.conv2',
        'backbone.layer3',
        dict(
            recorder=dict(type='mmrazor.ModuleInputs', source=RELU),
            record_idx=1,
            data_idx=0,
        ),
    ],
)
def test_what_stays_as_it_is_is_not_told(told, layer):
    step(build(layer), batch())
    assert not any('in place' in text for text in told)


def test_several_calls_are_told_unless_one_is_chosen():
    model = build(RELU)
    losses_of(model, batch())
    found = [text for text in model.first_step.warnings if 'runs 2 times' in text]
    assert len(found) == 2
    assert f"'{RELU}' of the student" in found[0] and 'from 0 to 1' in found[0]
    for call in (0, 1):
        model = build(dict(recorder=RELU, record_idx=call))
        losses_of(model, batch())
        assert not any('times' in text for text in model.first_step.warnings)
