# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Records that a network changes in place, and layers that run several times."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmrazor.models.task_modules import RecorderManager
from torch import nn

from mmfakd.models.distillers.changed_records import tell_changed_records
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


class Halves(nn.Module):
    """Returns a part of its output, and something changes the rest of it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        self.whole = self.layer(x).chunk(2, 1)
        return self.whole[0]


def test_what_is_done_to_the_rest_of_a_view_is_not_told(told):
    model = nn.Sequential(Halves(nn.Conv2d(3, 4, 1)))
    recorder = RecorderManager(dict(a=dict(type='mmrazor.ModuleOutputs', source='0')))
    recorder.initialize(model)
    for part, count in ((1, 0), (0, 1)):
        with tell_changed_records(recorder.recorders, model, 'student'), recorder:
            model(torch.rand(2, 3, 4, 4))
            with torch.no_grad():
                model[0].whole[part].add_(1)
        assert sum('in place' in text for text in told) == count


@pytest.mark.parametrize('wrapped', [False, True])
def test_compiled_networks_are_not_watched(wrapped):
    """A hook of one pass would stay in the graph."""
    layer = nn.Conv2d(3, 4, 1)
    layer.compile(backend='eager')
    model = nn.Sequential(layer)
    if wrapped:
        model = nn.Sequential(torch.compile(nn.Conv2d(3, 4, 1), backend='eager'))
    recorder = RecorderManager(dict(a=dict(type='mmrazor.ModuleOutputs', source='0')))
    recorder.initialize(model)
    with tell_changed_records(recorder.recorders, model, 'student'):
        assert sum(len(m._forward_hooks) for m in model.modules()) == 1
    # What is beside them is.
    beside = nn.Sequential(nn.Conv2d(3, 4, 1), layer)
    recorder = RecorderManager(dict(a=dict(type='mmrazor.ModuleOutputs', source='0')))
    recorder.initialize(beside)
    with tell_changed_records(recorder.recorders, beside, 'student'):
        assert len(beside[0]._forward_hooks) == 2


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
