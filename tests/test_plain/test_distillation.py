# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a training loop does with a distillation, and what it leaves alone."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import weakref
from collections import namedtuple
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mmfakd
from mmfakd.models.connectors import LayerwiseConnector, ReviewConnector
from mmfakd.models.losses import FFTFeatureLoss, HierarchicalContextLoss
from tests.helpers.plain_models import Checkpointed, distilled, images, network, pair

BF16 = torch.bfloat16


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for hook in hooks.values()
    ]


def by_hand(student, teacher, connector, loss, batch):
    """The loss of two stages, without any hook."""
    ours, theirs = [], []
    x, y = batch, batch
    for i in (0, 1):
        x = student[i](x)
        ours.append(x)
        with torch.no_grad():
            y = teacher[i](y)
        theirs.append(y)
    return sum(loss(p, t) for p, t in zip(connector(ours), theirs))


@pytest.mark.parametrize('gap', [1.0, 0.1, 0.01])
def test_losses_are_in_float32_under_autocast(gap):
    """KD of a student that is near its teacher was negative in bfloat16."""
    student, teacher = pair(4, 4)
    teacher.load_state_dict(student.state_dict())
    with torch.no_grad():
        student[-1].weight += gap * torch.randn(student[-1].weight.shape)
    made = distilled(student, teacher, (), method='kd', tau=4)
    batch = images()
    with torch.autocast('cpu', dtype=BF16):
        ours = student(batch)
        found = made.loss()
    with torch.no_grad(), torch.autocast('cpu', dtype=BF16):
        theirs = teacher.eval()(batch)
    rows = [F.log_softmax(x.float() / 4, 1) for x in (ours, theirs)]
    expected = 16 * F.kl_div(*rows, reduction='batchmean', log_target=True)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_what_was_refused_is_refused_again():
    """A notebook's cell is run twice."""
    student, teacher = pair()
    with torch.no_grad():
        teacher[0][0].weight.fill_(torch.nan)
    made = distilled(student, teacher, report=True)
    for _ in range(2):
        student(images())
        with pytest.raises(ValueError, match='not finite'):
            made.loss()


class Twice(nn.Module):
    """Runs its body once more where it is trained."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 5)

    def forward(self, x):
        out = self.body(x)
        if self.training:
            self.other = self.body(x.flip(-1))
        return self.fc(out.mean((2, 3)))


def test_a_layer_that_runs_more_often_in_training():
    torch.manual_seed(0)
    student = Twice()
    made = distilled(student, network(), ['body'], teacher_layers=['0'])
    student.train()(images())
    with pytest.raises(RuntimeError, match=r"'body' ran 2 times .*call=0\)"):
        made.loss()
    made.close()
    first = [dict(name='body', call=0)]
    made = distilled(student, network(), first, teacher_layers=['0'])
    student(images())
    [ours] = made._sides[0].read()
    torch.testing.assert_close(ours, student.body(images()))


@pytest.mark.parametrize(
    ('method', 'kind', 'loss'),
    [
        ('fakd-review', ReviewConnector, nn.MSELoss()),
        ('reviewkd', ReviewConnector, HierarchicalContextLoss()),
        ('fakd-layer', LayerwiseConnector, nn.MSELoss()),
        ('fitnet', LayerwiseConnector, nn.MSELoss()),
        ('fft', LayerwiseConnector, FFTFeatureLoss(focal_alpha=1.0)),
    ],
)
@pytest.mark.parametrize('any_size', [False, True])
def test_loss_is_that_of_the_core(method, kind, loss, any_size):
    student, teacher = pair()
    made = distilled(
        student, teacher, method=method, any_size=any_size, loss_weight=0.5
    )
    student(images())
    value = made.loss()
    connector = made.distiller.connectors['review']
    assert isinstance(connector, kind)
    expected = 0.5 * by_hand(student, teacher, connector, loss, images())
    torch.testing.assert_close(value, expected)
    value.backward()
    assert all(p.grad is not None for p in made.parameters())
    reached = [n for n, p in student.named_parameters() if p.grad is not None]
    assert len(reached) == 8 and all(name[0] in '01' for name in reached)
    assert all(p.grad is None for p in teacher.parameters())


def test_predictions_and_their_temperature():
    student, teacher = pair()
    made = distilled(student, teacher, (), method='kd', loss_weight=0.9, tau=4.0)
    logits = student(images())
    target = F.softmax(teacher(images()) / 4, 1)
    expected = F.kl_div(F.log_softmax(logits / 4, 1), target, reduction='batchmean')
    torch.testing.assert_close(made.loss(), 0.9 * 16 * expected)
    assert list(made.losses) == ['loss_kd'] and not made.losses['loss_kd'].requires_grad


class Tagger(nn.Module):
    """Scores of five classes at each of the tokens, last or in dimension 1."""

    def __init__(self, width, classes_last=True):
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.mix, self.head = nn.Linear(width, width), nn.Linear(width, 5)
        self.classes_last = classes_last

    def forward(self, input_ids):
        logits = self.head(self.mix(self.embed(input_ids)).relu())
        return dict(logits=logits if self.classes_last else logits.transpose(1, 2))


@pytest.mark.parametrize('last', [(True, True), (False, True), (False, False)])
def test_predictions_of_sequences(last):
    """A mean over all positions, if one of them has its classes last."""
    torch.manual_seed(0)
    models = [Tagger(width, at) for width, at in zip((8, 16), last)]
    batch = dict(input_ids=torch.randint(50, (4, 12)))
    example = dict(input_ids=batch['input_ids'][:1, :7])
    made = distilled(*models, (), example_input=example, method='kd', tau=2.0)
    rows = []
    for model, classes_last in zip(models, last):
        logits = model(**batch)['logits']
        logits = logits if classes_last else logits.transpose(1, 2)
        rows.append((logits / 2).softmax(2).detach())
    ours, theirs = rows
    divergence = 4 * (theirs * (theirs / ours).log()).sum(2)
    expected = divergence.mean() if any(last) else divergence.sum(1).mean()
    torch.testing.assert_close(made.loss(), expected)


def test_predictions_of_one_class():
    student, teacher = network(classes=1), network(6, classes=1)
    for layers, given in (((), dict(method='kd')), (('0', '1'), dict(kd_weight=1.0))):
        with pytest.raises(ValueError, match='over one class is constant.*`kd_weight`'):
            distilled(student, teacher, layers, **given)
    assert distilled(student, teacher)


class WithLoss(nn.Module):
    """Returns its loss before its logits where it gets labels."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x, labels=None):
        logits = self.body(x)
        if labels is None:
            return (logits,)
        return F.cross_entropy(logits, labels), logits


@pytest.mark.parametrize('labels', [(), (torch.arange(4),)])
def test_predictions_behind_a_loss(labels):
    torch.manual_seed(0)
    student, teacher = WithLoss(), WithLoss()
    example = (images(), *labels)
    made = distilled(student, teacher, (), method='kd', example_input=example)
    ours = student(images(), torch.arange(4))[1]
    theirs = teacher(images())[0].detach()
    expected = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction='batchmean')
    torch.testing.assert_close(made.loss(), expected)


def test_warmup_counts_calls_and_is_resumed():
    student, teacher = pair()
    made = distilled(student, teacher, warmup=4)
    factors = []

    def step(made, student):
        student(images())
        made.loss()
        factors.append(float(made.losses['warmup']))

    for _ in range(2):
        step(made, student)
    resumed = distilled(student, teacher, warmup=4)
    resumed.load_state_dict(made.state_dict())
    older = distilled(*pair(), method='fakd-review').state_dict()
    told = r"(?s)Missing key.*older versions took method='fakd-review'"
    with pytest.raises(RuntimeError, match=told):
        resumed.load_state_dict(older)
    made.close()
    for _ in range(3):
        step(resumed, student)
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_weights_that_were_measured_before(monkeypatch):
    """And those that are now: the loss goes on as another, which is told."""
    said = []
    place = 'mmfakd.plain.distillation.print_log'
    monkeypatch.setattr(place, lambda text, **_: said.append(text))
    student, teacher = pair()
    kinds = dict(measured="measured (loss_weight='balance')", numbers='numbers')
    made = dict(
        measured=distilled(student, teacher, loss_weight='balance'),
        numbers=distilled(student, teacher),
    )
    for before, now in (('measured', 'numbers'), ('numbers', 'measured')):
        made[now].load_state_dict(made[before].state_dict())
        told = f'were {kinds[before]} before and are {kinds[now]} now'
        assert told in said.pop()
        # As wrapped for several processes, or as a part of something.
        whole = nn.ModuleDict(dict(module=made[now]))
        whole.load_state_dict(nn.ModuleDict(dict(module=made[before])).state_dict())
        assert told in said.pop()
        made[now].load_state_dict(state_dict=made[now].state_dict())
        assert not said


def test_trace_while_distilled():
    """Of a student whose predictions and changed layers are copied when recorded."""
    student, teacher = pair()
    layers = [dict(name='0.1', copy=True)]
    made = distilled(student, teacher, layers, kd_weight=1.0)
    traced = torch.jit.trace(student.eval(), images())
    torch.testing.assert_close(traced(images()), student(images()))
    student.train()(images())
    assert made.loss() > 0


def test_weights_are_measured_against_the_loss_of_the_loop():
    student, teacher = pair()
    made = distilled(
        student, teacher, loss_weight=dict(type='balance', ratio=1, iters=1)
    )
    with pytest.raises(RuntimeError, match=r'give it, loss\(own=loss\)'):
        student(images())
        made.loss()
    own = F.cross_entropy(student(images()), torch.arange(4))
    loss = made.loss(own=own)
    shared = [p for name, p in student.named_parameters() if name[0] in '01']
    norms = [
        torch.stack(
            [g.norm() for g in torch.autograd.grad(x, shared, retain_graph=True)]
        )
        for x in (own, loss)
    ]
    # Each of the two levels was given half of the ratio.
    assert 0.3 < float(norms[1].norm() / norms[0].norm()) <= 1.01
    student(images())
    assert made.loss() > 0


@pytest.mark.parametrize('given', [dict(), dict(loss_weight='balance')])
def test_what_is_no_loss_of_the_student_is_refused(given):
    student, teacher = pair()
    made = distilled(student, teacher, report=True, **given)
    own = F.cross_entropy(student(images()), torch.arange(4), reduction='none')
    with pytest.raises(ValueError, match=r'a tensor of shape \(4,\) .*losses.mean\(\)'):
        made.loss(own=own)
    with pytest.raises(ValueError, match=r'a float as `own`.*not loss.item\(\)'):
        made.loss(own=own.mean().item())
    # The pass was not used up.
    assert made.loss(own=own.mean()[None]) > 0


@pytest.mark.parametrize('given', [dict(report=True), dict(loss_weight='balance')])
def test_a_loss_of_the_student_without_graph_is_told(given):
    student, teacher = pair()
    made = distilled(student, teacher, **given)
    with patch('mmfakd.plain.own_loss.print_log') as said:
        for seed in range(2):
            own = F.cross_entropy(student(images(seed)), torch.arange(4))
            made.loss(own=own.detach())
    assert said.call_count == 1 and 'without detach()' in said.call_args[0][0]
    if made.first_step is not None:
        assert 'begins at zero' not in made.report()


def test_a_loss_of_the_student_that_nothing_needs():
    """Without a report and with weights as numbers."""
    student, teacher = pair()
    made = distilled(student, teacher)
    with patch('mmfakd.plain.own_loss.print_log') as said:
        own = F.cross_entropy(student(images()), torch.arange(4))
        made.loss(own=own.detach())
    assert not said.called


def test_the_first_call_reports():
    student, teacher = pair()
    made = distilled(student, teacher, report=True)
    with pytest.raises(RuntimeError, match='the first call of loss makes the report'):
        made.report()
    state = copy.deepcopy(student.state_dict())
    own = F.cross_entropy(student(images()), torch.arange(4))
    moved = copy.deepcopy(student.state_dict())
    made.loss(own=own)
    assert all(torch.equal(v, moved[k]) for k, v in student.state_dict().items())
    assert not torch.equal(moved['0.1.running_mean'], state['0.1.running_mean'])
    levels = made.first_step.levels
    assert [level.student[0][0] for level in levels] == ['0', '1']
    assert [level.teacher[0][1] for level in levels] == [(4, 6, 8, 8), (4, 12, 4, 4)]
    assert levels[1].reached == sum(p.numel() for p in student[:2].parameters())
    assert 0 < levels[0].ratio < 100
    assert 'loss_level1' in made.report() and 'config' not in made.report()


@pytest.mark.parametrize('damage', [float('nan'), 0.0])
def test_a_void_teacher_is_an_error(damage):
    student, teacher = pair()
    made = distilled(student, teacher, report=True)
    with torch.no_grad():
        teacher[1][1].weight.fill_(damage)
        teacher[1][1].bias.fill_(damage)
    student(images())
    with pytest.raises(ValueError, match=r"teacher's feature '1' is (not finite|zero)"):
        made.loss()


def test_a_frozen_student_is_an_error():
    student, teacher = pair()
    made = distilled(student, teacher, report=True)
    student[0].requires_grad_(False)
    student(images())
    with pytest.raises(
        ValueError, match="layer '0' is cut off: all .* are frozen"
    ) as e:
        made.loss()
    assert 'of mmfakd.distill skips this check' in str(e.value)


def test_too_strong_a_loss_is_told_with_weights(caplog):
    student, teacher = pair()
    made = distilled(student, teacher, report=True, loss_weight=1e4)
    own = F.cross_entropy(student(images()), torch.arange(4))
    made.loss(own=own)
    warning = made.first_step.warnings[0]
    assert '`loss_weight=[' in warning and 'of mmfakd.distill' in warning
    assert 'cfg-options' not in warning and 'model.distiller' not in warning


def test_a_pass_is_counted_once():
    student, teacher = pair()
    made = distilled(student, teacher)
    with pytest.raises(RuntimeError, match='the student has not run'):
        made.loss()
    student(images())
    made.loss()
    with pytest.raises(RuntimeError, match='the student has not run since the last'):
        made.loss()
    # Of two passes the last one counts, with its inputs.
    student(images(3))
    student(images(4))
    last = made.loss()
    student(images(4))
    torch.testing.assert_close(made.loss(), last)


def test_evaluation_records_nothing():
    student, teacher = pair()
    made = distilled(student, teacher)
    recorder = made._sides[0].recorder
    with torch.no_grad():
        student(images())
    assert not any(recorder.records.values())
    with pytest.raises(RuntimeError, match='ran without gradients'):
        made.loss()
    made.eval()
    student(images())
    assert not any(recorder.records.values()) and recorder.inputs is None
    with pytest.raises(RuntimeError, match='evaluation mode'):
        made.loss()
    made.train()
    student(images())
    with torch.no_grad(), pytest.raises(RuntimeError, match='could teach nothing'):
        made.loss()


def test_teacher_stays_in_evaluation_mode():
    student, teacher = pair()
    made = distilled(student, teacher)
    both = nn.ModuleList([student, teacher])
    both.train()
    before = copy.deepcopy(teacher.state_dict())
    student(images())
    made.loss().backward()
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_two_that_teach_each_other_train():
    """As in deep mutual learning; each teaches in evaluation mode."""
    first, second = pair(4, 4)
    second.load_state_dict(first.state_dict())
    both = nn.ModuleList([first, second])
    made = [distilled(first, second), distilled(second, first)]
    for i in range(3):
        both.train()
        losses = [model(images(i)).square().mean() for model in both]
        sum([*losses, *(one.loss() for one in made)]).backward()
        assert all(module.training for module in both.modules())
    assert [int(model[0][1].num_batches_tracked) for model in both] == [3, 3]
    made[1].close()
    first(images())
    made[0].loss()
    assert not any(module.training for module in second.modules())


def test_a_teacher_under_inference_mode():
    class Inferring(nn.Sequential):
        @torch.inference_mode()
        def forward(self, x):
            return super().forward(x)

    student, teacher = pair()
    for method in ('fakd-review', 'fakd-layer', 'fitnet', 'reviewkd', 'fft', 'kd'):
        names = () if method == 'kd' else ['0', '1']
        options = dict(method=method)
        losses = []
        for model in (teacher, Inferring(*teacher)):
            torch.manual_seed(0)
            with distilled(student, model, names, **options) as made:
                student(images())
                losses.append(made.loss())
                losses[-1].backward()
        assert losses[0] == losses[1]


@pytest.mark.parametrize('method', ['fakd-review', 'kd'])
def test_a_student_that_is_frozen_later_is_told(method):
    student, teacher = pair(4, 4)
    made = distilled(student, teacher, () if method == 'kd' else ['0'], method=method)
    with patch('mmfakd.plain.distillation.print_log') as said:
        student(images())
        made.loss()
        assert not said.called
        student.requires_grad_(False)
        for _ in range(2):
            student(images())
            made.loss()
    (text,) = [call.args[0] for call in said.call_args_list]
    assert text.startswith('NOTHING IS TAUGHT') and 'student.requires_grad_()' in text


def test_state_dicts_hold_what_is_theirs():
    student, teacher = pair()
    keys = [*student.state_dict()]
    made = distilled(student, teacher)
    assert [*student.state_dict()] == keys
    assert all(key.startswith('distiller.connectors.') for key in made.state_dict())
    ours = {id(p) for p in [*student.parameters(), *teacher.parameters()]}
    assert not ours & {id(p) for p in made.parameters()}


def test_copies_of_the_student_record_nothing_and_hold_no_graph():
    student, teacher = pair()
    made = distilled(student, teacher)
    average = torch.optim.swa_utils.AveragedModel(student)
    student(images())
    average(images(2))
    recorded = made._sides[0].recorder.records
    assert [len(calls) for calls in recorded.values()] == [1, 1]
    made.loss().backward()
    # After a step nothing of it is left, so that a copy can be made again.
    assert not any(recorded.values())
    average = copy.deepcopy(student)
    average.train()
    average(images())
    assert not any(recorded.values())
    buffer = io.BytesIO()
    torch.save(student, buffer)
    assert b'mmfakd' not in buffer.getvalue()
    loaded = pickle.loads(pickle.dumps(student))
    torch.testing.assert_close(loaded(images()), average(images()))


def test_a_copy_of_the_distillation_has_weights_alone():
    student, teacher = pair()
    made = distilled(student, teacher)
    other = copy.deepcopy(made)
    assert other.state_dict().keys() == made.state_dict().keys()
    with pytest.raises(RuntimeError, match='closed, or a copy'):
        other.loss()
    assert 'closed' in repr(
        other
    ) and '  0        4 x 8 x 8  0        6 x 8 x 8' in repr(made)


def test_hooks_end_with_the_context_or_the_object():
    student, teacher = pair()
    with distilled(student, teacher) as made:
        assert len(hooks_of(student)) == 3
        with pytest.raises(AttributeError, match='PassHook'):
            torch.jit.script(student)
    assert not hooks_of(student) and not hooks_of(teacher)
    torch.jit.script(student)
    with pytest.raises(RuntimeError, match='closed'):
        made.loss()
    made = distilled(student, teacher)
    recorder = weakref.ref(made._sides[0].recorder)
    del made
    gc.collect()
    assert recorder() is None
    student(images())


def test_a_failed_call_takes_its_hooks_along():
    student, teacher = pair()
    with pytest.raises(ValueError, match='no layer'):
        distilled(student, teacher, ['0', 'nowhere'])
    with pytest.raises(ValueError, match='fails on the example input'):
        distilled(student, teacher, example_input=torch.zeros(1, 4, 16, 16))
    assert not hooks_of(student) and not hooks_of(teacher)


def test_what_is_changed_in_place_is_recorded_as_it_was():
    student, teacher = pair()
    made = distilled(student, teacher, ['0.1', '1.1'], method='fakd-review')
    seen = []
    handle = student[0][1].register_forward_hook(
        lambda module, args, output: seen.append(output.detach().clone())
    )
    student(images())
    handle.remove()
    ours = made._sides[0].read()[0]
    assert ours.min() < 0
    torch.testing.assert_close(ours, seen[0])
    # The connector's activation follows the teacher's features, which are not clipped.
    assert isinstance(made.distiller.connectors['review'].levels[0].act, nn.Identity)


class InPlaceInTraining(nn.Module):
    """An in-place dropout behind the layer, which an example run does not show."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Conv2d(3, 4, 3), nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        return self.drop(self.layer(x))


def test_what_only_training_changes_in_place_is_told():
    student, teacher = InPlaceInTraining(), InPlaceInTraining()
    made = distilled(student, teacher, ['layer'])
    student(images())
    with pytest.raises(RuntimeError, match=r"dict\(name='layer', copy=True\)"):
        made.loss()
    made.close()
    layers = [dict(name='layer', copy=True)]
    made = distilled(student, teacher, layers, method='fitnet')
    student(images())
    assert made.loss() > 0


def test_what_only_training_changes_in_place_is_recorded_when_compiled():
    """No version of a tensor is to be seen there."""
    torch.manual_seed(0)
    student, teacher = InPlaceInTraining(), InPlaceInTraining()
    made = distilled(student, teacher, ['layer'], method='fitnet')
    torch.compile(student, backend='aot_eager')(images())
    [ours] = made._sides[0].read()
    torch.testing.assert_close(ours, student.layer(images()))


Output = namedtuple('Output', 'feature logits')


class WithFeature(nn.Module):
    """Returns features as wide as its logits before them, and drops in place."""

    def __init__(self, width=4):
        super().__init__()
        self.body, self.head = network(width, classes=6), nn.Linear(6, 6)
        self.drop = nn.Dropout(0.5, inplace=True)

    def forward(self, x):
        feature = self.drop(self.body(x))
        return Output(feature, self.head(feature))


def change_nothing(logits):
    pass


def mask_a_class(logits):
    logits[:, 1] = -100


@pytest.mark.parametrize('change', [change_nothing, mask_a_class, lambda x: x.div_(4)])
@pytest.mark.parametrize('compiled', [False, True])
def test_predictions_count_as_they_were_returned(compiled, change):
    torch.manual_seed(0)
    student, teacher = WithFeature(), WithFeature(6).eval()
    made = distilled(student, teacher, (), method='kd')
    run = torch.compile(student, backend='aot_eager') if compiled else student
    logits = run(images()).logits
    rows = logits.detach().log_softmax(1), teacher(images()).logits.softmax(1)
    change(logits)
    loss = made.loss()
    torch.testing.assert_close(loss, F.kl_div(*rows, reduction='batchmean'))
    (logits.sum() + loss).backward()
    assert student.head.weight.grad.abs().sum() > 0


def test_predictions_that_are_changed_as_a_part_of_a_level():
    """The model itself is a level, too, whose other outputs count."""
    student, teacher = WithFeature(), WithFeature(6)
    layer = dict(name='', index=0, layout='NCHW')
    made = distilled(student, teacher, [layer], kd_weight=1.0)
    student(images())
    assert made.loss() > 0
    student(images()).logits.div_(4)
    with pytest.raises(RuntimeError, match=r"dict\(name='', copy=True\)"):
        made.loss()


def replica(module):
    """A copy as DataParallel makes one for each GPU."""
    copied = module._replicate_for_data_parallel()
    for key, p in module._parameters.items():
        copied._parameters[key] = None if p is None else p * 1
    for key, child in module.named_children():
        copied._modules[key] = replica(child)
    return copied


def test_data_parallel_around_the_student():
    student, teacher = pair()
    made = distilled(student, teacher)
    other = replica(student)
    for part in (other, other[0]):
        with pytest.raises(TypeError, match='student is a DataParallel.*`.module`'):
            part(images())
    # Evaluation records nothing, and may run so.
    with torch.no_grad():
        other(images())
    made.eval()
    other(images())
    made.train()
    # On a CPU there are no copies.
    nn.DataParallel(student)(images())
    assert made.loss() > 0


class Normalises(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.body = network(width)

    def forward(self, x):
        return self.body(x.sub_(0.5).div_(0.25))


@pytest.mark.parametrize('compiled', [False, True])
def test_a_student_that_changes_its_inputs(compiled):
    torch.manual_seed(0)
    student, teacher = Normalises(), Normalises(6)
    run = torch.compile(student, backend='aot_eager') if compiled else student
    made = distilled(run, teacher, ['body.0'], example_input=images())
    run(images())
    with pytest.raises(RuntimeError, match=r'changed in place since, by the student'):
        made.loss()
    run(images())
    assert made.loss(images()) > 0


def test_changed_inputs_are_told():
    student, teacher = pair()
    made = distilled(student, teacher)
    batch = images()
    student(batch)
    batch.mul_(2)
    with pytest.raises(RuntimeError, match='changed in place'):
        made.loss()
    student(batch)
    assert made.loss(batch.clone()) > 0


def test_checkpointed_stages():
    student, teacher = pair()
    plain = distilled(student, teacher)
    student(images())
    expected = plain.loss()
    plain.close()
    outer = Checkpointed(student, reentrant=False)
    made = distilled(outer, Checkpointed(teacher, False), ['layers.0', 'layers.1'])
    outer(images())
    loss = made.loss()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    # The second run, in the backward pass, leaves nothing behind.
    assert not any(made._sides[0].recorder.records.values())
    outer.reentrant = True
    outer(images().requires_grad_())
    with pytest.raises(RuntimeError, match='use_reentrant=False'):
        made.loss()


def test_autocast_holds_for_teacher_and_connectors():
    student, teacher = pair()
    made = distilled(student, teacher)
    seen = []
    teacher[0][0].register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    with torch.autocast('cpu', dtype=BF16):
        student(images())
        inside = made.loss()
    with torch.autocast('cpu', dtype=BF16):
        student(images())
    outside = made.loss()
    torch.testing.assert_close(outside, inside)
    student(images())
    full = made.loss()
    assert seen == [BF16, BF16, torch.float32] and inside.dtype == torch.float32
    torch.testing.assert_close(inside, full, rtol=0.05, atol=0.01)
    inside.backward()
    assert all(p.grad.dtype == torch.float32 for p in made.parameters())


@pytest.mark.parametrize(
    'dtypes', [(torch.float64,) * 2, (BF16, torch.float32), (torch.float32, BF16)]
)
def test_models_of_other_precision(dtypes):
    student, teacher = (m.to(d) for m, d in zip(pair(), dtypes))
    made = distilled(student, teacher, kd_weight=1.0)
    student(images().to(dtypes[0]))
    loss = made.loss()
    loss.backward()
    precise = torch.float64 if dtypes[0] == torch.float64 else torch.float32
    assert {p.dtype for p in made.parameters()} == {precise}
    reference, expected = pair(), None
    full = distilled(*reference, kd_weight=1.0)
    reference[0](images())
    expected = full.loss()
    torch.testing.assert_close(loss.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize('submodule', [False, True])
def test_compiled_student(submodule):
    student, teacher = pair()
    plain = copy.deepcopy(student)
    expected = distilled(plain, copy.deepcopy(teacher), ['0.1', '1'])
    layers = ['0.1', '1']
    if submodule:
        student[0] = torch.compile(student[0], backend='aot_eager')
        layers[0], run = '0._orig_mod.1', student
    else:
        run = torch.compile(student, backend='aot_eager')
    made = distilled(run, teacher, layers, teacher_layers=['0.1', '1'])
    for seed in range(2):
        run(images(seed))
        plain(images(seed))
        ours, theirs = made.loss(), expected.loss()
        torch.testing.assert_close(ours, theirs)
        ours.backward()
        theirs.backward()
    for p, q in zip(student[:2].parameters(), plain[:2].parameters()):
        torch.testing.assert_close(p.grad, q.grad)


def test_channels_last_and_moves():
    student, teacher = pair()
    made = distilled(student, teacher)
    student(images())
    expected = made.loss()
    made.to(memory_format=torch.channels_last)
    assert teacher[1][0].weight.is_contiguous(memory_format=torch.channels_last)
    student.to(memory_format=torch.channels_last)
    student(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(made.loss(), expected)
    made.double()
    assert {p.dtype for p in [*made.parameters(), *teacher.parameters()]} == {
        torch.float64
    }


def test_accumulated_gradients_are_those_of_the_sum():
    student, teacher = pair()
    made = distilled(student, teacher)
    parameters = [*student[:2].parameters(), *made.parameters()]
    for seed in (1, 2):
        student(images(seed))
        made.loss().backward()
    found = [p.grad.clone() for p in parameters]
    student.zero_grad()
    made.zero_grad()
    total = 0
    for seed in (1, 2):
        student(images(seed))
        total = total + made.loss()
    total.backward()
    for ours, p in zip(found, parameters):
        torch.testing.assert_close(ours, p.grad)


def test_sizes_that_the_filters_do_not_have():
    student, teacher = pair()
    made = distilled(student, teacher)
    student(images(shape=(2, 3, 24, 20)))
    with pytest.raises(
        ValueError, match=r"'0' of the teacher has 12x10 pixels; 8x8 .*any_size"
    ):
        made.loss()
    student(images())
    with pytest.raises(ValueError, match='4 images, .* 2: call loss with the batch'):
        made.loss(images()[:2])


def test_strides_that_differ_by_no_whole_number():
    """With any size a prediction has its target's, also where rounding differs."""
    student, teacher = pair()
    teacher[0][0].padding = (0, 0)
    made = distilled(student, teacher, any_size=True)
    for shape in ((2, 3, 17, 22), (2, 3, 30, 18)):
        student(images(shape=shape))
        assert made.loss() > 0


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('given', ['both', 'student'])
def test_connectors_that_the_optimizer_lacks_are_told(given, fused):
    """Fused optimizers do not raise the versions of weights."""
    student, teacher = pair()
    made = distilled(student, teacher)
    parameters = [
        *student.parameters(),
        *(made.parameters() if given == 'both' else ()),
    ]
    optimizer = torch.optim.AdamW(parameters, fused=fused)
    with patch('mmfakd.plain.distillation.print_log') as said:
        for i in range(5):
            student(images(i))
            made.loss().backward()
            # Gradients of two batches are accumulated.
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
    assert said.call_count == (given == 'student')
    if given == 'student':
        assert 'the connectors of the distillation have not' in said.call_args[0][0]


def test_connectors_move_after_the_warmup_began():
    """A plain optimizer for the student, a fused one for what gets no gradient yet."""
    student, teacher = pair()
    made = distilled(student, teacher, warmup=dict(begin=3, end=6))
    sgd = torch.optim.SGD(student.parameters(), 0.1)
    fused = torch.optim.SGD(made.parameters(), 0.1, fused=True)
    with patch('mmfakd.plain.distillation.print_log') as said:
        for i in range(8):
            (student(images(i)).square().mean() + made.loss()).backward()
            for optimizer in (sgd, fused):
                optimizer.step()
                optimizer.zero_grad()
    assert not said.called and made._moves.known


def test_several_teachers_and_several_students():
    student, teacher = pair()
    other = network(5)
    first = distilled(student, teacher)
    second = distilled(student, other, ['1'])
    third = distilled(other, teacher, ['0'])
    student(images())
    losses = [first.loss(), second.loss()]
    other(images())
    losses.append(third.loss())
    sum(losses).backward()
    for made in (first, second, third):
        assert all(p.grad is not None for p in made.parameters())


def test_layers_that_are_replaced_later():
    student, teacher = pair()
    made = distilled(student, teacher, ['0.1', '1'])
    student = nn.SyncBatchNorm.convert_sync_batchnorm(student)
    assert isinstance(student[0][1], nn.SyncBatchNorm)
    student[1] = nn.Sequential(*student[1])
    student(images())
    assert made.loss() > 0
    made.close()
    assert not hooks_of(student)


class Around(nn.Module):
    """A wrapper that hides the names of what it wraps."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args):
        return self.inner(*args)


def test_layers_that_are_wrapped_later():
    student, teacher = pair()
    made = distilled(student, teacher, ['0.1', '1.1'])
    student(images())
    before = made.loss()
    student[0] = Around(student[0])
    student(images())
    assert made.loss() == before
    # A new layer at another place is not guessed at.
    student[1] = Around(nn.Sequential(*copy.deepcopy(student[1])))
    with pytest.raises(
        ValueError, match=r"no layer '1.1'. Nearest names: .*'1.inner.1'"
    ):
        student(images())


def test_predictions_of_other_classes():
    student, teacher = network(classes=5), network(classes=6)
    with pytest.raises(ValueError, match=r'predicts \(1, 5\), the teacher \(1, 6\)'):
        distilled(student, teacher, kd_weight=1.0)
    with pytest.raises(
        ValueError, match='returned a tuple with no tensors; to compare'
    ):
        distilled(
            nn.Sequential(student, Nothing()),
            teacher,
            ['0.0', '0.1'],
            kd_weight=1.0,
            teacher_layers=['0', '1'],
        )


class Nothing(nn.Module):
    def forward(self, x):
        return ()


def test_public_names_need_no_torch_at_import():
    code = "import sys, mmfakd; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)
    assert mmfakd.distill is mmfakd.plain.distill
    assert mmfakd.Distillation is mmfakd.plain.Distillation
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        mmfakd.distil  # noqa: B018
    student = network()
    with pytest.raises(ValueError, match='share layers or weights'):
        mmfakd.distill(student, student, ['0'], None, images())


def test_mode_may_be_assigned():
    """Lightning restores the modes of modules so, after a validation."""
    student, teacher = pair()
    made = distilled(student, teacher)
    made.eval()
    student(images())
    with pytest.raises(RuntimeError, match='it is in evaluation mode'):
        made.loss()
    made.training = True
    student(images())
    assert made.loss() > 0
    made.training = False
    student(images())
    with pytest.raises(RuntimeError, match='it is in evaluation mode'):
        made.loss()


class WithLogits(nn.Module):
    """Predictions are ten times what its layer of that name yields."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, 2, 1)
        self.logits = nn.Conv2d(width, 5, 1)

    def forward(self, x):
        return 10 * self.logits(self.first(x)).mean((2, 3))


def test_predictions_beside_a_level_of_their_name():
    torch.manual_seed(0)
    student, teacher = WithLogits(4), WithLogits(6)
    layers = ('first', 'logits')
    made = distilled(student, teacher, layers, method='fitnet', kd_weight=1.0)
    ours, theirs = student(images()), teacher(images())
    made.loss()
    expected = F.kl_div(
        ours.log_softmax(1), theirs.softmax(1), reduction='batchmean'
    ).detach()
    torch.testing.assert_close(made.losses['loss_kd'], expected)


def test_teacher_that_changes_its_inputs():
    student, teacher = pair()
    teacher = nn.Sequential(nn.ReLU(inplace=True), teacher)
    made = distilled(student, teacher, ['0', '1'], teacher_layers=['1.0', '1.1'])
    student(images())
    with pytest.raises(RuntimeError, match='the teacher changes its inputs in place'):
        made.loss()
    batch = images()
    student(batch)
    made.loss(batch.clone())
