# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The same training with another order of the weights and features in memory."""

import copy

import pytest
import torch

from tests.helpers.toy import (
    LEVELS,
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    reviewkd_distiller,
    step,
)


def build(channels_last, distiller=None):
    torch.manual_seed(0)
    distiller = distiller or review_distiller()
    return feature_distill(distiller=distiller, channels_last=channels_last)


def is_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    'distiller',
    [
        review_distiller(),
        reviewkd_distiller(),
        layer_distiller(loss='mmfakd.FFTFeatureLoss'),
    ],
    ids=['fam_kd', 'reviewkd', 'fft_loss'],
)
def test_same_losses_and_gradients(distiller):
    """In double precision, where no activation is near enough to zero to flip."""
    plain, model = (build(last, distiller).double() for last in (False, True))
    data = plain.data_preprocessor(batch(), True)
    data['inputs'] = data['inputs'].double()
    for each in (plain, model):
        losses = each(**data, mode='loss')
        each.parse_losses(losses)[0].backward()
    assert is_last(model.teacher.backbone.layer2[0].conv1.weight)
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)


@pytest.mark.parametrize(
    'loss', ['L2Loss', 'ChannelWiseDivergence', 'FTLoss', 'DistanceWiseRKD', 'PKDLoss']
)
def test_losses_of_mmrazor(loss):
    """Which call `.view` of what they compare."""
    distiller = dict(
        type='mmfakd.LevelDistiller',
        student_levels=['backbone.layer3'],
        teacher_levels=['backbone.layer3'],
        level_loss=dict(type=f'mmrazor.{loss}'),
    )
    torch.manual_seed(0)
    data, found = batch(), []
    for last in (False, True):
        torch.manual_seed(1)
        model = feature_distill(
            teacher=classifier(), distiller=distiller, channels_last=last, report=False
        )
        found.append(step(model, data)['distill.loss_level0'])
    torch.testing.assert_close(*found)


def test_weights_and_features_of_both_networks():
    model = build(True)
    seen = []
    for network in (model.architecture, model.teacher):
        assert all(is_last(p) for p in network.parameters() if p.dim() == 4)
        for level in LEVELS[:3]:
            network.get_submodule(level).register_forward_hook(
                lambda module, inputs, output: seen.append(is_last(output))
            )
    losses_of(model, batch())
    # Three levels each, and the teacher's twice: the first step looks at it again.
    assert seen == [True] * 9


def test_format_outlives_steps_copies_and_checkpoints():
    model = build(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, batch())
    optimizer.step()
    other = build(False)
    other.load_state_dict(model.state_dict())
    key = 'architecture.backbone.layer2.0.conv1.weight'
    assert not is_last(other.state_dict()[key])
    copied = copy.deepcopy(model)
    copied.load_state_dict(other.state_dict())
    for x in (model, copied):
        assert is_last(x.state_dict()[key])
        assert torch.equal(x.state_dict()[key], other.state_dict()[key])


def test_same_first_weights_of_a_seed():
    """Of both networks and the distiller; the initialisation draws them again."""
    models = []
    for last in (False, True):
        torch.manual_seed(0)
        model = feature_distill(channels_last=last)
        memory = {name: p.data_ptr() for name, p in model.named_parameters()}
        model.init_weights()
        # Optimizers, buckets of DDP and the like may hold it already.
        assert {name: p.data_ptr() for name, p in model.named_parameters()} == memory
        models.append(model)
    for part in ('architecture', 'teacher', 'distiller'):
        plain, last = (getattr(model, part).state_dict() for model in models)
        for name, value in last.items():
            assert torch.equal(value, plain[name]), f'{part}.{name}'
            assert value.dim() != 4 or part == 'distiller' or is_last(value), name


def test_order_outlives_an_initialisation_that_fails(tmp_path):
    model = feature_distill(channels_last=True, teacher_ckpt=str(tmp_path / 'gone.pth'))
    with pytest.raises(FileNotFoundError):
        model.init_weights()
    assert is_last(model.architecture.backbone.layer2[0].conv1.weight)
    assert is_last(model.teacher.backbone.layer2[0].conv1.weight)
