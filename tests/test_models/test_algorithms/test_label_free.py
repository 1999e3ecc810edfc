# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Distillation without the student's own loss, and without labels."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import BaseLoop
from mmpretrain.engine.hooks import SwitchRecipeHook
from mmrazor.engine import StopDistillHook

import mmfakd  # noqa: F401
from mmfakd.models.algorithms.idle_parameters import name_whole
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
)
from tests.helpers.toy_detectors import (
    detection_batch,
    detector_distillation,
    retinanet,
)
from tests.helpers.two_processes import parallel, run_twice

LAYER = dict(type='mmrazor.ModuleOutputs', source='head.fc')
LOGITS = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(logits=LAYER),
    teacher_recorders=dict(logits=LAYER),
    distill_losses=dict(loss_kd=dict(type='mmrazor.KLDivergence', tau=4)),
    loss_forward_mappings=dict(
        loss_kd=dict(
            preds_S=dict(recorder='logits', from_student=True),
            preds_T=dict(recorder='logits', from_student=False),
        )
    ),
)


def detector(**kwargs):
    """FeatureDistill from neck to neck."""
    return MODELS.build(ConfigDict(detector_distillation(**kwargs)))


def unlabelled(data):
    """The batch as a pipeline without annotations packs it."""
    from mmengine.structures import InstanceData

    data = copy.deepcopy(data)
    for sample in data['data_samples']:
        if 'gt_instances' in sample:
            sample.gt_instances = InstanceData()
        else:
            del sample.gt_label
    return data


CASES = {
    'review': lambda **kw: feature_distill(**kw),
    'layer': lambda **kw: feature_distill(
        distiller=layer_distiller('backbone.layer2', channels=(8, 16)), **kw
    ),
    'logits': lambda **kw: feature_distill(distiller=LOGITS, **kw),
    'detector': detector,
}


def test_a_method_in_place_of_its_layer():
    """Its records of the search for a mode are none of the step."""
    method = dict(
        type='mmrazor.MethodOutputs',
        source='mmpretrain.models.heads.LinearClsHead.forward',
    )
    recorders = dict(logits=method)
    cfg = dict(LOGITS, student_recorders=recorders, teacher_recorders=recorders)
    given = unlabelled(batch())
    losses = []
    for distiller in (LOGITS, cfg):
        torch.manual_seed(0)
        model = feature_distill(distiller=distiller, calculate_student_loss=False)
        losses.append([losses_of(model, copy.deepcopy(given)) for _ in range(2)])
    for ours, theirs in zip(*losses):
        torch.testing.assert_close(ours, theirs)


def batch_for(name):
    return detection_batch() if name == 'detector' else batch()


def _train(rank, folder):
    """Four steps of each case; the weights go to a file, for the other process."""
    cases = [(name, dict(calculate_student_loss=False)) for name in CASES]
    for name in ('review', 'detector'):
        cases.append((name, dict(student_trainable=False)))
        both = dict(student_trainable=False, calculate_student_loss=False)
        cases.append((name, both))
    for i, (name, changes) in enumerate(cases):
        torch.manual_seed(0)
        model = CASES[name](**changes)
        before = copy.deepcopy(model.state_dict())
        wrapper = OptimWrapper(
            torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        )
        ddp = parallel(model)
        torch.manual_seed(rank)
        data = batch_for(name)
        if not model.calculate_student_loss:
            data = unlabelled(data)
        for _ in range(3):
            ddp.train_step(data, wrapper)
        after = {k: v.clone() for k, v in model.named_parameters()}
        moved = {k for k, v in after.items() if not torch.equal(v, before[k])}
        torch.save((after, moved), f'{folder}/{i}_{rank}.pth')


def idle_of(model, data):
    """Modules of the student that a backward pass leaves without gradient."""
    model.parse_losses(losses_of(model, data))[0].backward()
    return name_whole(
        model.architecture,
        [p for p in model.architecture.parameters() if p.grad is None],
    )


@pytest.mark.parametrize('name', CASES)
def test_labels_make_no_difference(name):
    data = batch_for(name)

    def losses(given):
        torch.manual_seed(0)
        return losses_of(CASES[name](calculate_student_loss=False), given)

    found, expected = losses(unlabelled(data)), losses(data)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_step_one_counts_once():
    """Finding how deep the student runs leaves statistics and random state alone."""
    model = feature_distill(
        distiller=LOGITS,
        calculate_student_loss=False,
    )
    data = unlabelled(batch())
    state = torch.get_rng_state()
    losses_of(model, data)
    assert torch.equal(torch.get_rng_state(), state)
    counts = [m for k, m in model.architecture.named_buffers() if 'batches' in k]
    assert {int(count) for count in counts} == {1}
    assert model.training and all(m.training for m in model.architecture.modules())


def test_what_is_never_trained_is_told(capsys):
    model = feature_distill(calculate_student_loss=False)
    assert idle_of(model, unlabelled(batch())) == ['head']
    told = 'NEVER TRAINED: head of the student (170 weights)'
    assert told in capsys.readouterr().out
    losses_of(model, unlabelled(batch()))
    assert 'NEVER' not in capsys.readouterr().out


@pytest.mark.parametrize('build', [classifier, retinanet])
def test_reentrant_checkpoints_hide_nothing(build):
    """mmcv's `with_cp` runs blocks that the graph does not show."""
    architecture = build()
    architecture['backbone']['with_cp'] = True
    detection = build is retinanet
    make = detector if detection else feature_distill
    model = make(architecture=architecture, calculate_student_loss=False)
    found = idle_of(model, unlabelled(batch_for('detector' if detection else '')))
    assert found == ['bbox_head' if detection else 'head']


def test_a_gradient_of_an_earlier_step_stays():
    """Within a cycle of accumulation another step may have reached a parameter."""
    model = feature_distill(calculate_student_loss=False)
    head = model.architecture.head.fc.weight
    head.grad = torch.ones_like(head)
    assert idle_of(model, unlabelled(batch())) == ['head.fc.bias']
    assert torch.equal(head.grad, torch.ones_like(head))


def test_images_without_labels_are_mixed():
    """mmpretrain's mixup passes over what has no labels."""
    mixup = dict(augments=[dict(type='Mixup', alpha=1.0)])
    preprocessor = dict(
        type='ClsDataPreprocessor', num_classes=10, batch_augments=mixup
    )
    model = feature_distill(
        architecture=classifier(data_preprocessor=preprocessor),
        calculate_student_loss=False,
    )
    data = unlabelled(batch())
    inputs = model.data_preprocessor(copy.deepcopy(data), True)['inputs']
    assert not torch.equal(inputs, data['inputs'].float())
    assert all(key.startswith('distill.') for key in losses_of(model, data))


def test_images_without_labels_are_mixed_once_mixing_is_switched_on():
    mixup = dict(augments=[dict(type='Mixup', alpha=1.0)])
    recipe = [
        dict(action_epoch=2, batch_augments=mixup),
        dict(action_epoch=3, batch_augments=None),
    ]
    hook = SwitchRecipeHook(recipe)
    model = feature_distill(calculate_student_loss=False)
    runner = SimpleNamespace(model=model, logger=logging.getLogger('switch'))
    data = unlabelled(batch())
    mixed = []
    for runner.epoch in range(3):
        hook.before_train_epoch(runner)
        made = model.data_preprocessor(copy.deepcopy(data), True)
        mixed.append(not torch.equal(made['inputs'], data['inputs'].float()))
        losses = model(**made, mode='loss')
        assert all(key.startswith('distill.') for key in losses)
    assert mixed == [False, True, False]


def test_missing_labels_are_named():
    with pytest.raises(ValueError, match='no labels.*calculate_student_loss=False'):
        losses_of(feature_distill(), unlabelled(batch()))
    with pytest.raises(ValueError, match='no labels.*calculate_student_loss=False'):
        losses_of(detector(), unlabelled(detection_batch()))
    records = dict(logits=dict(type='mmrazor.ModuleInputs', source='head.loss_module'))
    distiller = copy.deepcopy(LOGITS)
    distiller['student_recorders'] = records
    distiller['loss_forward_mappings']['loss_kd']['preds_S']['data_idx'] = 0
    model = feature_distill(distiller=distiller, calculate_student_loss=False)
    with pytest.raises(
        ValueError, match=r"'head.loss_module'.*the loss of the student"
    ):
        losses_of(model, unlabelled(batch()))
    # With labels it goes as deep as that.
    assert losses_of(model, batch()).keys() == {'distill.loss_kd'}


def test_a_frozen_student_needs_something_that_learns():
    with pytest.raises(ValueError, match='ConfigurableDistiller.*no parameters'):
        feature_distill(distiller=LOGITS, student_trainable=False)


@pytest.mark.parametrize('setting', ['student_trainable', 'calculate_student_loss'])
def test_nothing_is_learned_once_distillation_has_stopped(setting):
    """Images without labels would teach that nothing is there."""
    model = feature_distill(**{setting: False})
    data = batch() if setting == 'student_trainable' else unlabelled(batch())
    losses_of(model, data)
    model.distillation_stopped = True
    with pytest.raises(
        RuntimeError, match=f'{setting}=False: nothing is left to learn'
    ):
        losses_of(model, data)


class Loop(BaseLoop):
    """One that trains a model by a single batch."""

    max_epochs = 5

    def run(self):
        return losses_of(self.runner.model, unlabelled(batch()))


@pytest.mark.parametrize('stop', [0, 3, 5, 6])
def test_a_training_that_would_stop_to_learn_is_refused_at_once(stop):
    model = feature_distill(calculate_student_loss=False)
    hooks = [StopDistillHook(stop_epoch=stop)]
    loop = Loop(SimpleNamespace(model=model, hooks=hooks), dataloader=None)
    if stop < 5:
        with pytest.raises(
            ValueError, match=f'stop_epoch={stop} of 5 epochs, and calc'
        ):
            loop.run()
    else:
        assert loop.run()


def test_two_processes_without_unused_parameters(tmp_path):
    run_twice(_train, str(tmp_path))

    def load(case, rank):
        return torch.load(tmp_path / f'{case}_{rank}.pth')

    moved = []
    for case in range(8):
        (mine, names), (theirs, _) = load(case, 0), load(case, 1)
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)
        moved.append({name for name in names if name.startswith('architecture.')})
        assert all(k in names for k in mine if k.startswith('distiller.'))
    review, layer, logits, detection, *frozen = moved
    names = {k for k, _ in feature_distill().named_parameters() if k[0] == 'a'}
    head = ('architecture.head.', 'architecture.backbone.layer3.')
    # Neither gradients nor weight decay move what no loss reaches.
    assert review == {name for name in names if not name.startswith(head[0])}
    assert layer == {name for name in names if not name.startswith(head)}
    assert logits == names
    assert detection and not any('.bbox_head.' in name for name in detection)
    assert frozen == [set()] * 4
