# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the first training step says, and that it changes nothing."""

import copy
import logging
import math
import re
from contextlib import suppress
from functools import partial

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

from mmfakd.engine.hooks.first_step_hook import note_optimized
from mmfakd.models.distillers.loss_gradients import GradientsNotMeasured
from tests.helpers.toy import (
    batch,
    classifier,
    convolution,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    step,
)
from tests.helpers.two_processes import parallel, run_twice
from tests.helpers.within_loop import within_loop

NORMALISED = dict(
    type='ClsDataPreprocessor', num_classes=10, mean=[120.0] * 3, std=[70.0] * 3
)


def build(backbone=None, distiller=None, seed=0, **kwargs):
    torch.manual_seed(seed)
    architecture = classifier()
    architecture['backbone'].update(backbone or {})
    return feature_distill(
        architecture=architecture,
        distiller=distiller or layer_distiller(),
        data_preprocessor=dict(NORMALISED),
        **kwargs,
    )


def data(count=4):
    torch.manual_seed(3)
    return batch(count)


def level(source, loss='mmrazor.L2Loss', **kwargs):
    """One level of mmfakd's own distiller, the student's brought to the teacher's."""
    channels = dict(layer1=(4, 8), layer2=(8, 16), layer3=(16, 32))[
        source.split('.')[1]
    ]
    return dict(
        type='mmfakd.LevelDistiller',
        student_levels=[source],
        teacher_levels=[source],
        level_loss=dict(type=loss),
        student_connectors=convolution(*channels),
        **kwargs,
    )


def grads(loss, model):
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {i: g for i, g in enumerate(found) if g is not None}


def norm(gradients):
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def test_the_numbers_are_those_of_backward_passes():
    """With a warm-up and two losses; the report is of full weight."""
    cfg = review_distiller(loss_weight=[0.5, 1.0, 1.0, 2.0], warmup=dict(end=4))
    model = build(distiller=cfg)
    losses = losses_of(model, data())
    report = model.first_step
    assert report.warmup == 0.25
    own = losses['student.loss']
    mine = grads(own, model.architecture)
    total, whole = {}, float(own)
    for i, row in enumerate(report.levels):
        loss = losses[f'distill.loss_level{i}'] / 0.25
        gradients = grads(loss, model.architecture)
        assert row.name == f'loss_level{i}'
        assert row.weight == [0.5, 1.0, 1.0, 2.0][i]
        assert row.loss == pytest.approx(float(loss), rel=1e-5)
        assert row.norm == pytest.approx(norm(gradients.values()), rel=1e-4)
        reference = norm(mine[key] for key in gradients)
        assert row.ratio == pytest.approx(row.norm / reference, rel=1e-4)
        assert row.reached == sum(g.numel() for g in gradients.values())
        for key, value in gradients.items():
            total[key] = total.get(key, 0) + value
        whole += float(loss)
    assert report.total.norm == pytest.approx(norm(total.values()), rel=1e-4)
    assert report.own_loss == pytest.approx(float(own))
    shares = [row.share for row in report.levels]
    assert shares == pytest.approx([row.loss / whole for row in report.levels])
    first = report.levels[0]
    assert first.student == [('backbone.layer1', (4, 4, 8, 8))]
    assert first.teacher == [('backbone.layer1', (4, 8, 8, 8))]
    text = report.text()
    assert max(map(len, text.splitlines())) <= 100
    assert 'the warm-up begins at 0.25 of it' in text
    assert '4 x 4 x 8 x 8' in text and f'{first.reached:,}' in text


def trained(
    report,
    backbone=None,
    distiller=None,
    steps=2,
    autocast=False,
    measure=False,
    **kwargs,
):
    """All that two accumulated steps leave behind."""
    model = build(backbone, distiller, report=report, **kwargs)
    torch.manual_seed(5)
    inputs = data()
    torch.manual_seed(6)
    for _ in range(steps):
        if measure:
            model.measure_next_step()
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            losses = losses_of(model, copy.deepcopy(inputs))
        model.parse_losses(losses)[0].backward()
    assert (model.first_step is not None) == report
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    state = [*gradients, *model.state_dict().values(), torch.get_rng_state()]
    return model, state


def equal(ours, theirs):
    same = all(torch.equal(a, b) for a, b in zip(ours, theirs))
    return same and len(ours) == len(theirs)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(autocast=True),
        dict(backbone=dict(with_cp=True)),
        dict(distiller=review_distiller(warmup=dict(begin=1, end=4))),
        dict(distiller=review_distiller(loss_weight=dict(type='balance', iters=1))),
        dict(calculate_student_loss=False),
        dict(student_trainable=False),
    ],
    ids=lambda o: next(iter(o), 'plain'),
)
def test_the_training_is_the_same_bit_for_bit(options):
    with_look, ours = trained(True, **options)
    _, theirs = trained(False, **options)
    assert equal(ours, theirs)
    measured, theirs = trained(False, measure=True, **options)
    assert equal(ours, theirs)
    names = [row.name for row in measured.measured.levels]
    assert names == [row.name for row in with_look.first_step.levels]
    # No graph is kept, and there is one look.
    report = copy.deepcopy(with_look).first_step
    assert report.levels[0].student == with_look.first_step.levels[0].student
    learns = options.get('student_trainable', True)
    assert (not report.unmeasured) == learns
    assert all((row.reached or 0) > 0 for row in report.levels) == learns


def test_label_free_has_no_ratios(caplog):
    model, _ = trained(True, calculate_student_loss=False, steps=1)
    report = model.first_step
    assert math.isnan(report.total.ratio) and report.total.norm > 0
    assert 'no loss of its own' in ' '.join(report.notes)
    assert report.as_dict()['total']['ratio'] is None
    assert 'nothing' not in report.text().split('alone:')[0]


FROZEN = re.escape(
    'loss_level0 cannot teach: its gradient reaches no weight of the student, as the '
    "layer 'backbone.layer1' is cut off: all 724 weights up to it are frozen "
    '(`requires_grad=False`), by `frozen_stages=1` of '
)


def test_frozen_stages():
    """In a review, too, where the deeper levels still reach the student."""
    for distiller in (level('backbone.layer1'), review_distiller()):
        with pytest.raises(ValueError, match=FROZEN):
            losses_of(build(dict(frozen_stages=1), distiller), data())
    model = build(dict(frozen_stages=1), level('backbone.layer2'))
    losses_of(model, data())
    assert model.first_step.levels[0].reached > 0


def test_frozen_stages_of_weight_0_are_told():
    cfg = review_distiller(loss_weight=[0, 1, 1, 1])
    model = build(dict(frozen_stages=1), cfg)
    before = copy.deepcopy(model.state_dict())
    losses_of(model, data())
    notes = ' '.join(model.first_step.notes)
    assert "loss_level0 reaches no weight of the student through 'backbone.l" in notes
    assert 'weight 0, nothing is distilled by: loss_level0' in notes
    # The student ran once.
    assert int(model.state_dict()['architecture.backbone.bn1.num_batches_tracked']) == (
        int(before['architecture.backbone.bn1.num_batches_tracked'])
    ), 'its stem is in evaluation mode'
    counted = model.architecture.backbone.layer3[0].bn1.num_batches_tracked
    assert int(counted) == 1


def test_frozen_by_hand_or_by_the_optimizer():
    model = build(distiller=level('backbone.layer2'))
    model.architecture.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match=r'all 2,852 weights up to it are frozen'):
        losses_of(model, data())
    model = build(distiller=level('backbone.layer2'))
    model.note_optimized(
        [*model.architecture.head.parameters(), *model.distiller.parameters()]
    )
    with pytest.raises(ValueError, match=r'optimizer moves none .*`lr_mult=0`'):
        losses_of(model, data())


def test_connectors_that_the_optimizer_leaves_as_they_are():
    for learn in (True, False):
        model = build(distiller=level('backbone.layer2'))
        parts = [model.architecture, *([model.distiller] if learn else [])]
        model.note_optimized([p for part in parts for p in part.parameters()])
        losses_of(model, data())
        said = ' '.join(model.first_step.warnings)
        count = sum(p.numel() for p in model.distiller.parameters())
        text = f"does not move {count:,} weights of the distiller, 'connectors.student0"
        assert (text in said) == (not learn)


@pytest.mark.parametrize('rate', [0, 0.1])
def test_optimizer_without_a_rate(rate):
    """A warm-up that begins at 0 is none."""
    model = build(distiller=level('backbone.layer2'))
    wrapper = OptimWrapper(SGD(model.parameters(), lr=0.0))
    for group in wrapper.optimizer.param_groups:
        group['initial_lr'] = rate
    note_optimized(model, wrapper)
    if rate:
        losses_of(model, data())
        return
    with pytest.raises(ValueError, match='a learning rate of 0'):
        losses_of(model, data())


@pytest.mark.parametrize('layer', ['conv1', 'conv2'])
def test_inside_a_reentrant_checkpoint(layer):
    model = build(dict(with_cp=True), level(f'backbone.layer2.1.{layer}'))
    with pytest.raises(ValueError, match='inside a re-entrant checkpoint') as error:
        losses_of(model, data())
    assert "(`with_cp=True` of 'backbone.layer2.1')" in str(error.value)
    assert "Record 'backbone.layer2.1' as a whole" in str(error.value)


def without_gradients(stage, x):
    with torch.no_grad():
        return stage(x)


@pytest.mark.parametrize(
    ('how', 'cause'),
    [
        (lambda m, x: checkpoint(m, x, use_reentrant=True), 'a re-entrant checkpoint,'),
        (
            without_gradients,
            r"`torch.no_grad\(\)`, within the forward .*'backbone.layer2'",
        ),
        (lambda m, x: m(x.detach()), 'reaches'),
    ],
    ids=['checkpoint', 'no_grad', 'detach'],
)
def test_what_users_put_around_a_stage(how, cause):
    """Layers are recorded inside of it. A detached input leaves its own weights."""
    model = build(distiller=level('backbone.layer2.0'))
    stage = model.architecture.backbone.layer2
    stage.forward = partial(how, stage.forward)
    if cause == 'reaches':
        losses_of(model, data())
        assert model.first_step.levels[0].reached == 944
        return
    with pytest.raises(ValueError, match=cause):
        losses_of(model, data())


def test_a_detached_feature_and_a_detaching_loss(monkeypatch):
    model = build(distiller=level('backbone.layer2'))
    stage = model.architecture.backbone.layer2
    stage[1].relu.register_forward_hook(lambda m, args, out: out.detach())
    with pytest.raises(
        ValueError, match=r"the graph ends behind 'backbone.layer2.1.*'"
    ):
        losses_of(model, data())
    model = build(distiller=level('backbone.layer2'))
    connector = model.distiller.connectors['student0']
    forward = connector.forward
    monkeypatch.setattr(connector, 'forward', lambda x: forward(x.detach()))
    with pytest.raises(ValueError, match='the connector or the loss detaches it'):
        losses_of(model, data())


def test_pre_training_of_connectors_is_no_error():
    model = build(distiller=level('backbone.layer1'), student_trainable=False)
    losses_of(model, data())
    assert 'student_trainable=False' in ' '.join(model.first_step.notes)


def spoil(teacher, how):
    weights = dict(teacher.backbone.layer2[0].named_parameters())
    for name, parameter in weights.items():
        if how == 'nan':
            parameter.data.fill_(math.nan)
        elif 'weight' in name or how == 'zero':
            parameter.data.zero_()


@pytest.mark.parametrize(
    ('how', 'reason'),
    [
        ('nan', r'is not finite \(1,024 of 1,024 values\)'),
        ('zero', 'is zero everywhere'),
    ],
)
def test_a_teacher_with_nothing_to_say(how, reason):
    model = build(distiller=level('backbone.layer2.0'))
    spoil(model.teacher, how)
    text = rf"loss_level0: the teacher's feature 'backbone.layer2.0' {reason}"
    with pytest.raises(ValueError, match=text) as error:
        losses_of(model, data())
    assert 'its weights' in str(error.value).lower()
    # It is told, where the level counts for nothing, as long as its loss is a number.
    cfg = level('backbone.layer2.0', 'mmrazor.ABLoss', loss_weight=0.0)
    model = build(distiller=cfg)
    spoil(model.teacher, how)
    if how == 'nan':
        with pytest.raises(ValueError, match=text):
            losses_of(model, data())
        return
    losses_of(model, data())
    assert re.search(reason, ' '.join(model.first_step.notes))


def blind_teacher():
    """Its weights are zero but for the shift of a norm: all images look the same."""
    model = build(distiller=level('backbone.layer2.0'))
    spoil(model.teacher, 'weights')
    for name, parameter in model.teacher.backbone.layer2[0].named_parameters():
        if 'bias' in name:
            parameter.data.uniform_(0.5, 1)
    return model


def test_a_teacher_that_does_not_look():
    with pytest.raises(ValueError, match='is the same for all images, although'):
        losses_of(blind_teacher(), data())
    same = data()
    same['inputs'][:] = same['inputs'][:1]
    model = build(distiller=level('backbone.layer2.0'))
    losses_of(model, same)
    assert model.first_step.errors == []


def forgetful_teacher():
    """As deep networks with random weights are: what differs is rounding."""
    model = blind_teacher()
    block = model.teacher.backbone.layer2[0]

    # What the images contribute is below a millionth, but for one bit not nothing.
    def forward(x):
        values = type(block).forward(block, x)
        return values * (1 + 2e-7 * torch.arange(len(x)).view(-1, 1, 1, 1))

    block.forward = forward
    return model


def test_a_teacher_that_forgets_its_input_is_doubted():
    model = forgetful_teacher()
    losses_of(model, data())
    [warning] = [w for w in model.first_step.warnings if 'but for rounding' in w]
    assert "the teacher's feature 'backbone.layer2.0'" in warning


def test_one_image_and_one_class_are_no_fault_of_the_teacher():
    """Two pooled features, or two scores of one class, may well be alike."""
    cfg = review_distiller()
    model = build(distiller=cfg)
    model.train()
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.eval()
    losses_of(model, data(1))
    assert model.first_step.errors == []


def test_imbalance_is_told_with_the_weights_that_mend_it():
    """Put into the config, they do."""
    cfg = review_distiller(loss_weight=1000.0)
    model = build(distiller=cfg, seed=1)
    losses_of(model, data())
    [warning] = [w for w in model.first_step.warnings if 'times' in w]
    assert model.first_step.total.ratio > 10
    listed = re.search(r'model.distiller.loss_weight="\[(.+?)\]"', warning)[1]
    assert (
        f'`loss_weight=[{listed.replace(",", ", ")}]` in `model.distiller`' in warning
    )
    weights = [float(number) for number in listed.split(',')]
    model = build(distiller=review_distiller(loss_weight=weights), seed=1)
    losses_of(model, data())
    assert model.first_step.total.ratio == pytest.approx(1, rel=0.02)
    assert not [w for w in model.first_step.warnings if 'times' in w]


def test_a_level_that_drowns_the_others():
    cfg = review_distiller(loss_weight=[1000.0, 0.01, 0.01, 0.01])
    model = build(distiller=cfg, seed=1)
    losses_of(model, data())
    [warning] = [w for w in model.first_step.warnings if 'times' in w]
    listed = re.search(r'loss_weight="\[(.+?)\]"', warning)[1]
    weights = [float(number) for number in listed.split(',')]
    model = build(distiller=review_distiller(loss_weight=weights), seed=1)
    losses_of(model, data())
    report = model.first_step
    assert report.total.ratio == pytest.approx(1, rel=0.02)
    norms = [row.norm for row in report.levels]
    assert max(norms) < 1.05 * min(norms)


@pytest.mark.parametrize('weight', [1e4, 1e-7])
def test_losses_of_mappings_have_their_own_option(weight):
    cfg = layer_distiller()
    cfg['distill_losses']['loss_fam']['loss_weight'] = weight
    model = build(distiller=cfg)
    losses_of(model, data())
    [warning] = [w for w in model.first_step.warnings if 'times' in w]
    option = r'--cfg-options model.distiller.distill_losses.loss_fam.loss_weight=(\S+)'
    cfg['distill_losses']['loss_fam']['loss_weight'] = float(
        re.search(option, warning)[1]
    )
    model = build(distiller=cfg)
    losses_of(model, data())
    assert model.first_step.total.ratio == pytest.approx(1, rel=0.02)


def test_option_of_a_loss_within_another():
    cfg = layer_distiller()
    cfg['distill_losses']['loss_kl'] = dict(
        type='mmfakd.StandardizedLogitsLoss',
        loss=dict(type='mmrazor.KLDivergence', tau=2, loss_weight=9e4),
    )
    fc = dict(type='mmrazor.ModuleOutputs', source='head.fc')
    for side in ('student', 'teacher'):
        cfg[f'{side}_recorders']['fc'] = fc
    cfg['loss_forward_mappings']['loss_kl'] = dict(
        preds_S=dict(recorder='fc', from_student=True),
        preds_T=dict(recorder='fc', from_student=False),
    )
    model = build(distiller=cfg)
    losses_of(model, data())
    [warning] = [w for w in model.first_step.warnings if 'times' in w]
    assert 'model.distiller.distill_losses.loss_kl.loss.loss_weight=' in warning


def test_any_step_is_measured_where_that_is_asked_for():
    """Its numbers are those of a report on the same weights and batch."""
    model = build(distiller=review_distiller(), report=False)
    step(model, data())
    assert model.measured is None
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    state = copy.deepcopy(model.state_dict())
    model.measure_next_step()
    step(model, data())
    measured = model.measured.as_dict()
    # Once.
    step(model, data())
    assert model.measured.as_dict() == measured
    model.load_state_dict(state)
    model.report = True
    step(model, data())
    report = model.first_step.as_dict()
    assert measured['levels'] == report['levels']
    assert measured['total'] == report['total']
    # It judges nothing.
    assert measured['warnings'] == measured['errors'] == []


def test_only_the_first_step_of_a_training_is_looked_at():
    model = build()
    with torch.no_grad():
        losses_of(model, data())
    model.eval()
    losses_of(model, data())
    assert model.first_step is None
    model.train()
    step(model, data())
    report = model.first_step
    step(model, data())
    assert model.first_step is report
    # A training that goes on has been looked at.
    model = build()
    model._teacher.has_weights = True
    within_loop(lambda: step(model, data()), iter=7)
    assert model.first_step is None


def test_gradients_that_cannot_be_taken_are_told(monkeypatch):
    def refuse(*args):
        raise GradientsNotMeasured('a compiled backward pass')

    monkeypatch.setattr('mmfakd.models.algorithms.first_look.loss_gradients', refuse)
    model = build()
    losses_of(model, data())
    report = model.first_step
    assert 'not measured (a compiled backward pass)' in report.text().replace('\n ', '')
    assert report.levels[0].reached == report.total.reached > 0
    assert report.as_dict()['gradients'] == 'a compiled backward pass'


def test_warnings_are_logged_as_such(caplog):
    with caplog.at_level(logging.WARNING):
        model = build(distiller=review_distiller(loss_weight=1e5))
        logger = logging.getLogger('mmengine')
        logger.addHandler(caplog.handler)
        try:
            losses_of(model, data())
        finally:
            logger.removeHandler(caplog.handler)
    assert model.first_step.warnings[0].startswith('THE TEACHER IS AT RANDOM')


def two_processes(rank, folder):
    """Each with other images; also where a level is cut off."""
    states = []
    for report in (True, False):
        model = build(None, review_distiller(), report=report)
        wrapped = parallel(model)
        for number in range(2):
            torch.manual_seed(10 * rank + number)
            inputs = model.data_preprocessor(batch(), True)
            losses = wrapped(**inputs, mode='loss')
            model.parse_losses(losses)[0].backward()
        if report:
            torch.save(model.first_step.as_dict(), f'{folder}/{rank}.pth')
        states.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*states))
    wrapped = parallel(build(dict(frozen_stages=1), level('backbone.layer1')))
    inputs = wrapped.module.data_preprocessor(batch(), True)
    with pytest.raises(ValueError, match='`frozen_stages=1`'):
        wrapped(**inputs, mode='loss')


def test_two_processes_say_the_same(tmp_path):
    run_twice(two_processes, tmp_path)
    ours, theirs = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    for key in ('levels', 'total', 'own_loss', 'warnings', 'errors'):
        assert ours[key] == theirs[key]


def one_has_equal_images(rank, folder):
    """It cannot tell what the other sees, and goes on beside it."""
    said = {}
    for change in ('none', 'same', 'rounding'):
        model = blind_teacher() if change == 'same' else build()
        if change == 'rounding':
            model = forgetful_teacher()
        inputs = data()
        if rank:
            inputs['inputs'][:] = inputs['inputs'][:1]
        with suppress(ValueError):
            losses_of(model, inputs)
        look = model.first_step
        said[change] = [look.warnings, look.errors]
    torch.save(said, f'{folder}/{rank}.pth')


def test_one_of_two_processes_has_equal_images(tmp_path):
    run_twice(one_has_equal_images, tmp_path)
    ours, theirs = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert ours == theirs
    assert ours['none'][1] == []
    assert 'is the same for all images, although' in ours['same'][1][0]
    assert 'but for rounding' in ours['rounding'][0][-1]


def one_cannot_measure(rank, folder):
    """Distillation drowns the student's own loss, as the other would tell."""
    if rank:
        name = 'mmfakd.models.algorithms.first_look.loss_gradients'
        pytest.MonkeyPatch().setattr(name, lacks_memory)
    model = build(distiller=review_distiller(loss_weight=1e5))
    losses_of(model, data())
    torch.save(model.first_step.as_dict(), f'{folder}/{rank}.pth')


def lacks_memory(*args):
    raise GradientsNotMeasured('out of memory')


def test_one_of_two_processes_cannot_measure(tmp_path):
    run_twice(one_cannot_measure, tmp_path)
    ours, theirs = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert ours['gradients'] == theirs['gradients'] == 'out of memory'
    assert ours['warnings'] == theirs['warnings']
