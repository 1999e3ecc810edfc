# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What holds for all backbones; their function is checked with the converter."""

import math

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from tests.helpers.mdistiller_zoo import build, levels, record
from tests.helpers.toy import without_gradient

# Type -> arguments; per stage channels, and how often the size is halved.
BACKBONES = dict(
    CIFARResNet=(dict(depth=8), (16, 32, 64), (0, 1, 2)),
    CIFARVGG=(dict(depth=11), (64, 128, 256, 512, 512), (0, 1, 2, 3, 3)),
    CIFARMobileNetV2=({}, (12, 16, 48, 160, 1280), (1, 2, 3, 4, 4)),
    CIFARShuffleNetV1=({}, (240, 480, 960), (1, 2, 3)),
    CIFARShuffleNetV2=({}, (116, 232, 464, 1024), (1, 2, 3, 3)),
    MobileNetV1=({}, (128, 256, 512, 1024), (2, 3, 4, 5)),
)
# A network of each kind, what initialises its convolutions, and its classifier.
NETWORKS = dict(
    resnet8=('he', 'torch'),
    resnet8x4=('he', 'torch'),
    ResNet18=('he', 'torch'),
    wrn_16_2=('he', 'torch, no bias'),
    vgg8=('he', 'normal'),
    MobileNetV2=('he', 'normal'),
    ShuffleV1=('torch', 'torch'),
    ShuffleV2=('torch', 'torch'),
    MobileNetV1=('torch', 'torch'),
    resnet18=('he', 'torch'),
)


def backbone(name, **kwargs):
    cfg = dict(type=f'mmfakd.{name}', **{**BACKBONES[name][0], **kwargs})
    model = MODELS.build(cfg)
    model.eval()  # returns None, as that of mmpretrain's backbones does
    return model


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('size', [(32, 32), (33, 47), (17, 9)])
def test_stages_at_any_size(name, size):
    _, channels, halvings = BACKBONES[name]
    # The last one by default, the one that the classifier gets.
    indices = tuple(range(len(channels)))
    model = backbone(name, out_indices=indices)
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        outs = model(x)
        model.out_indices = backbone(name).out_indices
        (last,) = model(x)
    assert torch.equal(last, outs[-1])
    # Pools round down, strided convolutions up.
    rounded = math.floor if name == 'CIFARVGG' else math.ceil
    assert [tuple(out.shape) for out in outs] == [
        (2, c, *(rounded(s / 2**k) for s in size)) for c, k in zip(channels, halvings)
    ]


@pytest.mark.parametrize('name', BACKBONES)
def test_state_dict_round_trip(name, tmp_path):
    # Other channels than 3, too.
    model, other = (backbone(name, in_channels=2) for _ in range(2))
    x = torch.rand(1, 2, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(x)[0], other(x)[0])
        torch.save(model.state_dict(), tmp_path / 'weights.pth')
        other.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))
        assert torch.equal(model(x)[0], other(x)[0])


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('out_indices', [(9,), (-1, 0), ()])
def test_unknown_stages(name, out_indices):
    last = len(BACKBONES[name][1]) - 1
    with pytest.raises(
        ValueError, match=rf'{name} got out_indices=.* 0 to {last}, for .* layer1, lay'
    ):
        backbone(name, out_indices=out_indices)


@pytest.mark.parametrize('arch', NETWORKS)
def test_two_steps_move_every_parameter(arch):
    model = build(arch, num_classes=5).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(4, 3, 32, 32)
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    for _ in range(2):
        optimizer.zero_grad()
        model.parse_losses(model(x, samples, mode='loss'))[0].backward()
        assert without_gradient(model) == []
        optimizer.step()
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []


@pytest.mark.parametrize('arch', NETWORKS)
def test_initial_weights_are_distributed_as_the_zoos(arch):
    convolutions, classifier = NETWORKS[arch]
    model = build(arch)
    for p in model.backbone.parameters():
        p.data.fill_(9)
    model.init_weights()
    weights = []
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d):
            assert module.bias is None
            out, fan_in, k, _ = module.weight.shape
            if convolutions == 'he':
                weights.append(module.weight.flatten() / math.sqrt(2 / (k * k * out)))
            else:
                bound = 1 / math.sqrt(fan_in * k * k)
                assert module.weight.abs().max() <= bound
                weights.append(module.weight.flatten() / bound)
    expected = 1 if convolutions == 'he' else 1 / math.sqrt(3)
    assert torch.cat(weights).std().item() == pytest.approx(expected, rel=0.02)
    linear = model.head.fc
    if classifier == 'normal':
        assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    else:
        bound = 1 / math.sqrt(linear.in_features)
        assert 0.99 * bound < linear.weight.abs().max() <= bound
    if classifier == 'torch':
        assert 0.5 * bound < linear.bias.abs().max() <= bound
    else:
        assert (linear.bias == 0).all()


@pytest.mark.parametrize('name', BACKBONES)
def test_pretrained_weights_stay(name, tmp_path):
    """No module's own initialisation comes after them."""
    weights = backbone(name).state_dict()
    torch.save(weights, tmp_path / 'weights.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    model = backbone(name, init_cfg=cfg)
    model.init_weights()
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize('arch', NETWORKS)
def test_what_is_recorded_before_the_activation_gets_gradients(arch):
    recorders = [pair[1] for pair in levels(arch)]
    model = build(arch)
    x = torch.randn(2, 3, 32, 32)
    _, records = record(model, x, recorders, grad=True)
    sum(r.square().mean() for r in records).backward()
    # Everything up to the last recorded value learns from it.
    beyond = ('head.', 'backbone.conv2.')
    assert [n for n in without_gradient(model) if not n.startswith(beyond)] == []
