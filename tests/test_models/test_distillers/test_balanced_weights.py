# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Level weights by measurement: right, fixed, and the same everywhere."""

import copy
import math
import re
import shutil

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmfakd.checkpoints.student import export_student
from mmfakd.compat import load_checkpoint_file
from mmfakd.models.distillers import BalancedWeights, balanced_weights
from tests.helpers.half_precision import needs_cpu_float16
from tests.helpers.tiny_runs import (
    Recorder,
    distillation,
    run_config,
    save_teacher,
    train,
)
from tests.helpers.toy import (
    LEVELS,
    batch,
    classifier,
    feature_distill,
    losses_of,
    review_distiller,
    step,
)
from tests.helpers.two_processes import parallel, run_twice

STAGES = LEVELS[:3]


def balance(ratio=1.0, iters=3):
    return dict(type='balance', ratio=ratio, iters=iters)


def levels_of_one_convolution(**kwargs):
    """Config of a distiller with one convolution for each stage."""
    conv = dict(type='mmrazor.ConvModuleConnector')
    cfg = dict(
        type='mmfakd.LevelDistiller',
        student_levels=STAGES,
        teacher_levels=STAGES,
        level_loss=dict(type='mmrazor.L2Loss', normalize=False, div_element=True),
        student_connectors=[
            dict(conv, in_channel=4 << i, out_channel=8 << i) for i in range(3)
        ],
        loss_weight=balance(),
    )
    return dict(cfg, **kwargs)


@pytest.fixture
def log(monkeypatch):
    """Every line that is logged."""
    lines = []
    monkeypatch.setattr(
        MMLogger, 'callHandlers', lambda _, record: lines.append(record.getMessage())
    )
    MMLogger.get_instance('balance')
    return lines


def toy():
    """Two parameters; the first level depends on one of them only."""
    x, y = (nn.Parameter(torch.tensor(value)) for value in (1.0, 1.0))

    def losses(own, first, second):
        return 3 * own * x + 4 * own * y, [first * x, second * (3 * x - 4 * y)]

    return [x, y], losses


def test_weights_of_two_parameters_by_hand():
    """Gradients: own (3, 4) and so 3 on x alone, 5 on both; levels 6 and 5 * 10."""
    parameters, losses = toy()
    weights = BalancedWeights(balance(ratio=[0.5, 2.0], iters=2), 2)
    own, levels = losses(1.0, first=6.0, second=10.0)
    weights.measure(own, levels, parameters)
    assert weights.values() == pytest.approx([0.5 / 2, 2 / 10])
    own, levels = losses(2.0, first=6.0, second=2.5)
    weights.measure(own, levels, parameters)
    # Ratios 2, 1 and 10, 1.25; the second iteration counts twice as much.
    expected = [0.5 / 2 ** (1 / 3), 2 / (10 * 1.25**2) ** (1 / 3)]
    assert weights.values() == pytest.approx(expected)
    assert weights.fixed
    assert all(p.grad is None for p in parameters)


def test_one_ratio_is_shared_by_the_levels():
    parameters, losses = toy()
    weights = BalancedWeights('balance', 2)
    weights.measure(*losses(1.0, 3.0, 1.0), parameters)
    assert weights.values() == pytest.approx([weights.ratios[0]] * 2)
    assert sum(weights.ratios) == balanced_weights._DEFAULTS['ratio']
    assert weights.iters == balanced_weights._DEFAULTS['iters']


def test_after_its_iterations_nothing_is_measured(monkeypatch, log):
    parameters, losses = toy()
    weights = BalancedWeights(balance(ratio=0.2, iters=1), 2)
    weights.measure(*losses(1.0, 3.0, 1.0), parameters)
    assert log == [
        'Level weights are fixed after 1 measured iterations: loss_weight=[0.1, 0.1]'
    ]
    monkeypatch.setattr(balanced_weights, 'loss_gradients', None)
    weights.measure(*losses(1.0, 30.0, 10.0), parameters)
    assert weights.values() == pytest.approx([0.1, 0.1])


def test_a_level_of_ratio_zero_is_not_measured():
    parameters, losses = toy()
    weights = BalancedWeights(balance(ratio=[0.0, 1.0]), 2)
    assert weights.values() == [0.0, 1.0]
    weights.measure(*losses(1.0, first=0.0, second=2.0), parameters)
    assert weights.values() == pytest.approx([0.0, 0.5])


BAD = [
    dict(type='balanced'),
    dict(type='balance', ratios=1.0),
    dict(type='balance', ratio=0),
    dict(type='balance', ratio=[0, 0]),
    dict(type='balance', ratio=[1, -1]),
    dict(type='balance', ratio=math.nan),
    dict(type='balance', ratio=math.inf),
    dict(type='balance', ratio='1'),
    dict(type='balance', ratio=True),
    dict(type='balance', ratio=None),
    dict(type='balance', iters=0),
    dict(type='balance', iters=2.5),
    dict(type='balance', iters=True),
    dict(ratio=1.0),
    {},
    'balanced',
    '',
]


@pytest.mark.parametrize('given', BAD, ids=str)
def test_bad_config(given):
    with pytest.raises(ValueError) as caught:
        MODELS.build(levels_of_one_convolution(loss_weight=given))
    message = str(caught.value)
    assert message.startswith(f'loss_weight: got {given!r}; expected a number, one for')
    assert "dict(type='balance', ratio=" in message


def test_ratios_of_another_number_of_levels():
    with pytest.raises(ValueError, match='loss_weight.ratio for 2 levels.*expected 3'):
        MODELS.build(levels_of_one_convolution(loss_weight=balance(ratio=[1, 1])))


@pytest.mark.parametrize(
    'given',
    ['balance', dict(type='balance', _scope_='mmfakd', _delete_=True)],
    ids=str,
)
def test_defaults(given):
    distiller = MODELS.build(levels_of_one_convolution(loss_weight=given))
    assert isinstance(distiller.loss_weight, BalancedWeights)


def with_numbers(model, cfg, weights=1.0):
    """The same model, its weights given as numbers and without a warm-up."""
    cfg = dict(cfg, loss_weight=weights, warmup=None)
    plain = feature_distill(distiller=cfg, teacher=model.teacher)
    plain.load_state_dict(model.state_dict())
    return plain


def naive_ratios(model, cfg, data):
    """By backward passes of their own: level -> gradient over the student's own."""
    gradients = []
    for i in [None, *range(len(cfg['student_levels']))]:
        plain = with_numbers(model, cfg)
        losses = losses_of(plain, copy.deepcopy(data))
        losses['student.loss' if i is None else f'distill.loss_level{i}'].backward()
        gradients.append([p.grad for p in plain.architecture.parameters()])
    own, *levels = gradients
    ratios = []
    for level in levels:
        both = [pair for pair in zip(level, own) if pair[0] is not None]
        norms = [torch.cat([g.flatten() for g in side]).norm() for side in zip(*both)]
        ratios.append((norms[0] / norms[1]).item())
    return ratios


DISTILLERS = dict(
    levels=levels_of_one_convolution,
    review=lambda **kwargs: review_distiller(
        **dict(dict(loss_weight=balance()), **kwargs)
    ),
)


@pytest.mark.parametrize('make', DISTILLERS.values(), ids=DISTILLERS)
def test_first_step_is_balanced(make):
    """As by backward passes alone; the warm-up is another matter."""
    cfg = make(warmup=dict(by_epoch=True, begin=0, end=4))
    model, data = feature_distill(distiller=cfg), batch()
    ratios = naive_ratios(model, cfg, data)
    unweighted = losses_of(with_numbers(model, cfg), copy.deepcopy(data))
    losses = losses_of(model, data)
    assert losses['distill.warmup'] == 0.25
    for i, ratio in enumerate(ratios):
        weight = 1 / len(ratios) / ratio
        assert losses[f'distill.weight_level{i}'].item() == pytest.approx(weight, 1e-4)
        expected = weight * unweighted[f'distill.loss_level{i}'] / 4
        found = losses[f'distill.loss_level{i}']
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize('make', DISTILLERS.values(), ids=DISTILLERS)
def test_measuring_leaves_the_training_alone(make):
    """Gradients and running statistics are those of the weights as numbers."""
    cfg = make()
    model, data = feature_distill(distiller=cfg), batch()
    start = copy.deepcopy(model.state_dict())
    step(model, copy.deepcopy(data))
    plain = with_numbers(model, cfg, model.distiller.loss_weight.values())
    plain.load_state_dict(start)
    step(plain, data)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0, msg=name)
    buffers = dict(model.named_buffers())
    for name, theirs in plain.named_buffers():
        torch.testing.assert_close(buffers[name], theirs, rtol=0, atol=0, msg=name)


def test_no_gradient_no_measurement():
    """A validation of the losses, before and after the first step."""
    model, data = feature_distill(distiller=levels_of_one_convolution()), batch()
    with torch.no_grad():
        losses = losses_of(model, copy.deepcopy(data))
    assert model.distiller.level_weights(3) == [1.0] * 3
    assert 'distill.weight_level0' not in losses
    losses_of(model, copy.deepcopy(data))
    weights = model.distiller.level_weights(3)
    model.eval()
    losses_of(model, data)
    assert model.distiller.level_weights(3) == weights
    assert model.distiller.loss_weight.steps == 1


def test_no_graph_outlives_the_step():
    model = feature_distill(distiller=levels_of_one_convolution())
    losses_of(model, batch())
    copied = copy.deepcopy(model)
    assert copied.distiller.level_weights(3) == model.distiller.level_weights(3)


def test_levels_of_a_neck_are_counted_by_the_connector():
    weights = MODELS.build(
        review_distiller(loss_weight='balance') | dict(student_levels='neck')
    ).loss_weight
    assert len(weights.ratios) == len(LEVELS)
    with pytest.raises(ValueError, match='got 2 levels, expected 4. Name each level'):
        x = nn.Parameter(torch.ones(()))
        weights.measure(x, [x, x], [x])


# ---------------------------------------------------------------- checkpoints


def measured():
    """A model in the middle of its measuring."""
    model = feature_distill(distiller=levels_of_one_convolution())
    step(model, batch())
    return model


def test_state_dict_holds_the_measurement():
    model = measured()
    other = feature_distill(distiller=levels_of_one_convolution())
    other.load_state_dict(model.state_dict())
    ours, theirs = (m.distiller.loss_weight for m in (model, other))
    assert ours.values() == theirs.values()
    assert not theirs.fixed
    assert (theirs.steps, theirs.counts.tolist()) == (1, [1] * 3)


def test_state_dict_of_weights_as_numbers_is_as_before():
    plain = feature_distill(distiller=levels_of_one_convolution(loss_weight=[1, 2, 3]))
    assert not any('loss_weight' in key for key in plain.state_dict())
    # From one to the other and back, strictly.
    model = measured()
    plain.load_state_dict(model.state_dict())
    fresh = feature_distill(distiller=levels_of_one_convolution())
    fresh.load_state_dict(plain.state_dict())
    assert fresh.distiller.level_weights(3) == [1.0] * 3


def test_other_ratios_and_iterations_use_what_was_measured():
    weights = measured().distiller.loss_weight
    other = BalancedWeights(balance(ratio=[1, 2, 0], iters=1), 3)
    other.load_state_dict(weights.state_dict())
    first, second, _ = weights.values()
    assert other.values() == pytest.approx([3 * first, 6 * second, 0])
    assert other.fixed


def test_an_average_of_buffers_keeps_what_was_measured():
    """`EMAHook(update_buffers=True)` puts averages of floats into the state dict."""
    weights, x = (
        BalancedWeights(balance(ratio=1, iters=200), 1),
        nn.Parameter(torch.ones(())),
    )
    average = ExponentialMovingAverage(weights, momentum=0.05, update_buffers=True)
    for _ in range(150):
        weights.measure(x * 1, [x * 8], [x])
        average.update_parameters(weights)
    other = BalancedWeights(balance(ratio=1, iters=200), 1)
    other.load_state_dict(average.module.state_dict())
    assert other.values() == pytest.approx([1 / 8])
    assert weights.values() == pytest.approx([1 / 8])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_sums_of_a_model_in_another_precision(dtype):
    weights = BalancedWeights(balance(iters=500), 1).to(dtype)
    x = nn.Parameter(torch.ones(()))
    for _ in range(500):
        weights.measure(x * 1, [x * 1.1], [x])
    assert weights.fixed and weights.values() == pytest.approx([1 / 1.1], rel=1e-4)


def test_what_cannot_have_been_measured_is_measured_anew(log):
    """Earlier versions let an average change one of two sums."""
    weights = BalancedWeights(balance(), 2)
    state = dict(
        log_ratios=torch.tensor([-11951.6, -3.0]),
        counts=torch.tensor([1, 1]),
        steps=torch.tensor(1),
    )
    weights.load_state_dict(state)
    assert any('It is measured anew.' in line for line in log)
    assert (weights.values(), int(weights.steps)) == ([1.0, 1.0], 0)


@pytest.mark.parametrize('levels', [1, 3])
def test_sums_of_another_number_of_levels(levels, log):
    """All or nothing: the number of steps alone would end the measuring at once."""
    given = BalancedWeights(balance(iters=1), 2)
    parameters, losses = toy()
    given.measure(*losses(1.0, 3.0, 1.0), parameters)
    weights = BalancedWeights(balance(iters=1), levels)
    # Strictly, and as MMEngine does.
    weights.load_state_dict(given.state_dict())
    load_state_dict(weights, given.state_dict(), strict=True)
    assert not weights.fixed and weights.values() == [1.0] * levels
    text = f'has those of 2 levels, and the distiller {levels}. They are measured anew.'
    assert any(text in line for line in log)


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize('which', ['calculate_student_loss', 'student_trainable'])
def test_no_loss_of_the_student_s_own(which):
    with pytest.raises(ValueError) as caught:
        feature_distill(distiller=levels_of_one_convolution(), **{which: False})
    assert f"type 'balance' with {which}=False" in str(caught.value)
    assert 'Give weights as numbers' in str(caught.value)


def test_stock_algorithm_never_measures():
    model = feature_distill(
        type='mmrazor.SingleTeacherDistill', distiller=levels_of_one_convolution()
    )
    with pytest.raises(RuntimeError, match=r'only mmfakd.FeatureDistill hands'):
        losses_of(model, batch())


def test_level_without_gradient():
    losses = [dict(type='mmrazor.L2Loss', loss_weight=w) for w in (1, 0, 1)]
    model = feature_distill(distiller=levels_of_one_convolution(level_loss=losses))
    with pytest.raises(RuntimeError) as caught:
        losses_of(model, batch())
    message = str(caught.value)
    assert "gradient of level 1 ('backbone.layer2') on the student is zero" in message
    assert 'Leave this level out' in message


def test_student_without_a_gradient_of_its_own(log):
    student = classifier()
    student['head']['loss']['loss_weight'] = 0.0
    model = feature_distill(architecture=student, distiller=levels_of_one_convolution())
    for _ in range(2):
        losses = losses_of(model, batch())
        assert [losses[f'distill.loss_level{i}'].item() for i in range(3)] == [0.0] * 3
    what = "student's own loss, where level 0 .* reaches it, is zero"
    (told,) = (line for line in log if re.search(what, line))
    assert told.endswith('Until that ends the level has weight 0.')
    with pytest.raises(RuntimeError, match=what):
        losses_of(model, batch())


def test_head_that_begins_at_zero():
    model = feature_distill(distiller=levels_of_one_convolution())
    nn.init.zeros_(model.architecture.head.fc.weight)
    losses = step(model, batch())
    assert losses['distill.loss_level0'] == 0
    nn.init.normal_(model.architecture.head.fc.weight)
    assert step(model, batch())['distill.loss_level0'] > 0
    # A level of weight 0 has a gradient, so that no process waits for one.
    assert model.distiller.loss_weight.counts.tolist() == [2] * 3


def test_gradient_that_is_not_finite():
    x = nn.Parameter(torch.ones(()))
    weights = BalancedWeights(balance(), 2)
    with pytest.raises(RuntimeError, match='gradient of level 1 .* is not finite'):
        weights.measure(x * 1, [x * 1, x * math.nan], [x])


@needs_cpu_float16
def test_what_overflows_in_float16_is_passed_over():
    """As the loss scaler of an optimizer passes over the step."""
    x = nn.Parameter(torch.ones(()))
    weights = BalancedWeights(balance(iters=2), 1)
    with torch.autocast('cpu', dtype=torch.float16):
        weights.measure(x * 1, [x * math.inf], [x])
        assert weights.values() == [0.0]
        weights.measure(x * 1, [x * 4], [x])
    assert weights.values() == pytest.approx([0.25])
    assert weights.fixed
    weights = BalancedWeights(balance(iters=2), 1)
    with torch.autocast('cpu', dtype=torch.float16):
        weights.measure(x * 1, [x * math.inf], [x])
        with pytest.raises(RuntimeError, match='level 0 .* is not finite'):
            weights.measure(x * 1, [x * math.inf], [x])


# -------------------------------------------------------------- two processes


def model_and_batches():
    torch.manual_seed(0)
    model = feature_distill(distiller=levels_of_one_convolution())
    return model, [batch(), batch()]


def measure_in_parallel(rank, folder):
    model, batches = model_and_batches()
    wrapped = parallel(model)
    for _ in range(2):
        data = model.data_preprocessor(copy.deepcopy(batches[rank]), True)
        losses = wrapped(**data, mode='loss')
        model.parse_losses(losses)[0].backward()
    torch.save(model.distiller.loss_weight.state_dict(), f'{folder}/{rank}.pth')


def test_processes_have_the_same_weights(tmp_path):
    run_twice(measure_in_parallel, tmp_path)
    states = [torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    expected = []
    for rank in (0, 1):
        model, batches = model_and_batches()
        for _ in range(2):
            losses_of(model, copy.deepcopy(batches[rank]))
        expected.append(model.distiller.loss_weight.log_ratios)
    mean = sum(expected) / 2
    torch.testing.assert_close(states[0]['log_ratios'], mean, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(*expected, rtol=1e-3)


# ----------------------------------------------------------------------- runs


def run(work_dir, teacher_ckpt, loss_weight=None, hooks=(), **kwargs):
    """Train epochs of two iterations each; three iterations are measured.

    Returns:
        The runner and the losses.
    """
    model = distillation(teacher_ckpt)
    model['distiller']['loss_weight'] = loss_weight or balance(ratio=2.0)
    for key in ('warmup', 'level_loss'):
        if key in kwargs:
            model['distiller'][key] = kwargs.pop(key)
    names = ('ResumeHook', 'ProvenanceHook', 'EpochSeedHook')
    hooks = [*(dict(type=f'mmfakd.{name}') for name in names), *hooks]
    for hook in hooks:
        if hook['type'] == 'mmfakd.ProvenanceHook':
            hook.update(kwargs.pop('provenance', {}))
    recorder = Recorder(kwargs.pop('stop_after', None))
    cfg = run_config(work_dir, model, hooks=hooks, epochs=3, **kwargs)
    cfg.default_hooks.checkpoint.type = 'mmfakd.SafeCheckpointHook'
    return train(cfg, recorder), recorder.losses


def copied(first, folder):
    shutil.copytree(first, folder)
    return folder


@pytest.fixture(scope='module')
def teacher_ckpt(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp('teacher'))


@pytest.fixture(scope='module')
def first(tmp_path_factory, teacher_ckpt):
    """A work dir in which training stopped after two of the three iterations."""
    folder = tmp_path_factory.mktemp('first') / 'run'
    run(folder, teacher_ckpt, stop_after=1)
    return folder


def test_resumed_in_the_middle_of_measuring(tmp_path, first, teacher_ckpt, log):
    whole, losses = run(tmp_path / 'whole', teacher_ckpt)
    resumed, rest = run(copied(first, tmp_path / 'r'), teacher_ckpt, resume=True)
    assert rest == losses[2:]
    assert 'distill.weight_level0' in rest[0]
    assert 'distill.weight_level0' not in rest[1]
    state = whole.model.state_dict()
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[key]), key
    fixed = [line for line in log if line.startswith('Level weights are fixed')]
    assert len(fixed) == 2
    assert fixed[0] == fixed[1]


def test_resumed_with_another_teacher(tmp_path, first, teacher_ckpt, log):
    other = tmp_path / 'teacher.pth'
    weights = torch.load(teacher_ckpt)
    weights['state_dict']['backbone.layer1.0.conv1.weight'] *= 2
    torch.save(weights, other)
    work_dir = copied(first, tmp_path / 'run')
    changes = dict(resume=True, provenance=dict(allow_changes=True))
    runner, _ = run(work_dir, str(other), **changes)
    assert any('measured against another teacher' in line for line in log)
    assert runner.model.distiller.loss_weight.steps == 3


def begin(tmp_path, first, teacher_ckpt, change=lambda checkpoint: None, **kwargs):
    """Train anew from the weights of the first run.

    Returns:
        Steps that had been measured before the first one, and the look at that.
    """
    path = tmp_path / 'given.pth'
    checkpoint = load_checkpoint_file(first / 'epoch_1.pth')
    change(checkpoint)
    torch.save(checkpoint, path)
    seen = Begin()
    HOOKS.register_module(name='Begin', module=lambda: seen, force=True)
    hooks = [dict(type='mmengine.Begin')]
    runner, _ = run(
        *(tmp_path / 'run', teacher_ckpt), hooks=hooks, load_from=str(path), **kwargs
    )
    return seen.steps, runner.model.first_step


class Begin(Hook):
    """Keeps how much had been measured before the first step."""

    def before_train(self, runner):
        self.steps = int(runner.model.distiller.loss_weight.steps)


def told_of_measured(log):
    return [line for line in log if 'level weights of the checkpoint were' in line]


def test_begun_from_the_same_distillation(tmp_path, first, teacher_ckpt, log):
    """What was measured is taken, wherever the teacher lies."""
    moved = shutil.copy(teacher_ckpt, tmp_path / 'moved.pth')
    settings = dict(loss_weight=balance(ratio=1.0, iters=5), warmup=dict(end=1))
    steps, look = begin(tmp_path, first, str(moved), **settings)
    assert steps == 2
    assert 'the weights of the levels are being measured.' in look.notes
    assert not told_of_measured(log)


def test_begun_from_one_with_another_loss(tmp_path, first, teacher_ckpt, log):
    level_loss = dict(type='mmrazor.L2Loss', normalize=True)
    steps, _ = begin(tmp_path, first, teacher_ckpt, level_loss=level_loss)
    assert steps == 0 and len(told_of_measured(log)) == 1


def test_begun_with_another_teacher(tmp_path, first, teacher_ckpt, log):
    weights = torch.load(teacher_ckpt)
    weights['state_dict']['backbone.layer1.0.conv1.weight'] *= 2
    torch.save(weights, tmp_path / 'teacher.pth')
    steps, _ = begin(tmp_path, first, str(tmp_path / 'teacher.pth'))
    assert steps == 0 and len(told_of_measured(log)) == 1


def test_begun_from_one_that_does_not_say(tmp_path, first, teacher_ckpt, log):
    level_loss = dict(type='mmrazor.L2Loss', normalize=True)
    steps, _ = begin(
        *(tmp_path, first, teacher_ckpt),
        change=lambda checkpoint: checkpoint['meta'].clear(),
        level_loss=level_loss,
    )
    assert steps == 2 and not told_of_measured(log)
    assert any('does not say what it comes from' in line for line in log)


def test_begun_with_a_teacher_of_another_source(tmp_path, first, teacher_ckpt, log):
    """A checkpoint without a digest tells of its teacher by the config alone."""
    moved = shutil.copy(teacher_ckpt, tmp_path / 'moved.pth')
    steps, _ = begin(
        *(tmp_path, first, str(moved)),
        change=lambda checkpoint: checkpoint['meta'].pop('mmfakd'),
    )
    assert steps == 0 and len(told_of_measured(log)) == 1


def test_begun_from_a_bare_state_dict(tmp_path, first, teacher_ckpt, log):

    def change(checkpoint):
        state_dict = checkpoint['state_dict']
        checkpoint.clear()
        checkpoint.update(state_dict)

    steps, _ = begin(tmp_path, first, teacher_ckpt, change)
    assert steps == 2 and not told_of_measured(log)
    assert any('does not say what it comes from' in line for line in log)


@pytest.mark.parametrize('factor, told', [(1.0, False), (1e4, True), (1e-5, True)])
def test_fixed_weights_are_judged(tmp_path, first, teacher_ckpt, factor, told):
    """By the ratio that was asked for: here 20, as one batch may have."""

    def change(checkpoint):
        state = checkpoint['state_dict']
        state['distiller.loss_weight.steps'] += 1
        sums = state['distiller.loss_weight.log_ratios']
        sums -= math.log(factor) * state['distiller.loss_weight.counts']

    weights = balance(ratio=20.0)
    steps, look = begin(tmp_path, first, teacher_ckpt, change, loss_weight=weights)
    assert steps == 3
    assert 'the weights of the levels are being measured.' not in look.notes
    warnings = [text for text in look.warnings if 'times that' in text]
    assert len(warnings) == told
    assert all('It would be as large' in text for text in warnings)
    assert all('were measured before, as in `load_from`' in text for text in warnings)


def test_resumed_with_numbers_and_back(tmp_path, first, teacher_ckpt, log):
    work_dir = copied(first, tmp_path / 'run')
    numbers = [1.0, 2.0, 3.0, 4.0]
    runner, losses = run(work_dir, teacher_ckpt, numbers, resume=True, stop_after=2)
    assert 'distill.weight_level0' not in losses[0]
    runner, losses = run(work_dir, teacher_ckpt, resume=True)
    assert 'distill.weight_level0' in losses[0]
    assert runner.model.distiller.loss_weight.steps == 2


def test_averaged_model_and_accumulation(tmp_path, teacher_ckpt):
    """Iterations are counted, not steps of the optimizer; buffers may be averaged."""
    ema = dict(type='EMAHook', update_buffers=True)
    optim = dict(optimizer=dict(type='SGD', lr=0.05), accumulative_counts=2)
    runner, losses = run(tmp_path, teacher_ckpt, hooks=[ema], optim_wrapper=optim)
    measured = ['distill.weight_level0' in one for one in losses]
    assert measured == [True, True, True, False, False, False]
    checkpoint = load_checkpoint_file(tmp_path / 'epoch_3.pth')
    assert any('loss_weight' in key for key in checkpoint['state_dict'])
    student = export_student(checkpoint)['state_dict']
    assert not any('loss_weight' in key for key in student)
    # Goes on from the averaged one, too.
    resumed, _ = run(
        *(tmp_path, teacher_ckpt), hooks=[ema], optim_wrapper=optim, resume=True
    )
    weights = [r.model.distiller.loss_weight.values() for r in (runner, resumed)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize('iters, told', [(6, False), (7, True)])
def test_training_that_is_over_before(tmp_path, teacher_ckpt, log, iters, told):
    """Six iterations are trained; the rest of the measurement never comes."""
    run(tmp_path, teacher_ckpt, balance(ratio=2.0, iters=iters))
    found = [line for line in log if 'the training has 6' in line]
    assert len(found) == told
    assert all('measures 7 iterations' in f and 'Give iters=1 ' in f for f in found)


def test_distillation_that_stops_before(tmp_path, teacher_ckpt):
    stop = dict(type='mmrazor.StopDistillHook', stop_epoch=1)
    runner, losses = run(tmp_path, teacher_ckpt, hooks=[stop])
    assert runner.model.distiller.loss_weight.steps == 2
    assert 'distill.loss_stopped' in losses[-1]
