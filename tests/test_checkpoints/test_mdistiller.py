# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The zoo's networks compute in mmpretrain what they computed where they come from."""

import numpy as np
import pytest
import torch
import torchvision
from torch.nn.functional import relu

from mmfakd.checkpoints.mdistiller import (
    convert_mdistiller_state_dict,
    find_mdistiller_archs,
)
from mmfakd.checkpoints.mdistiller_zoo import MDISTILLER_ARCHS, mdistiller_model_cfg
from tests.helpers.golden import distance
from tests.helpers.mdistiller_zoo import (
    ARCHS,
    TEACHER,
    TEST_IMAGES,
    build,
    fill,
    levels,
    output,
    random_images,
    record,
    zoo_golden,
    zoo_input,
    zoo_state_dict,
)

TORCHVISION = ('resnet18', 'resnet34', 'resnet50')


def load(arch, state_dict, **kwargs):
    """Our network with these weights, in evaluation mode."""
    model = build(arch, **kwargs)
    model.load_state_dict(convert_mdistiller_state_dict(state_dict, arch), strict=True)
    return model.eval()


def means(maps):
    return [x.mean((0, 2, 3)) for x in maps]


def test_every_network_has_a_reference():
    assert sorted({*ARCHS, *TORCHVISION}) == sorted(MDISTILLER_ARCHS)


@pytest.mark.parametrize('arch', ARCHS)
def test_same_function(arch):
    golden = zoo_golden(arch)
    pairs = levels(arch)
    after, before = zip(*pairs)
    logits, (pooled, *maps) = record(
        load(arch, zoo_state_dict(arch)),
        zoo_input(arch),
        [output('neck.gap'), *after, *before],
    )
    assert distance(logits, golden['logits']) < 1e-4
    assert distance(pooled.flatten(1), golden['pooled']) < 1e-4
    # Number 0 is the stem; for VGG and MobileNetV1 the first stage.
    first = 0 if arch.startswith('vgg') or arch == 'MobileNetV1' else 1
    assert f'feat{first + len(pairs)}_mean' not in golden
    for i in range(len(pairs)):
        assert maps[i].shape == tuple(golden[f'feat{first + i}_shape'])
        assert distance(means(maps)[i], golden[f'feat{first + i}_mean']) < 1e-4
    if arch == 'MobileNetV2':
        return
    for i, x in enumerate(maps[len(pairs) :], first):
        if arch.startswith('vgg') and i == 0:
            continue  # what the zoo lists here has passed the activation
        assert x.min() < 0
        assert distance(x.mean((0, 2, 3)), golden[f'preact{i}_mean']) < 1e-4


@pytest.mark.parametrize('arch', TORCHVISION)
def test_same_function_as_torchvision(arch):
    reference = getattr(torchvision.models, arch)(num_classes=7)
    state_dict = {k: fill(k, v.shape) for k, v in reference.state_dict().items()}
    reference.load_state_dict(state_dict)
    reference.eval()
    stages = [getattr(reference, f'layer{i}') for i in range(1, 5)]
    expected = []
    for stage in stages:
        stage.register_forward_hook(lambda _, __, x: expected.append(x))
    x = random_images(0, 2, 65)
    pairs = levels(arch)
    logits, records = record(
        load(arch, state_dict, num_classes=7), x, [r for pair in pairs for r in pair]
    )
    with torch.no_grad():
        assert distance(logits, reference(x)) < 1e-4
    for i in range(4):
        after, before = records[2 * i : 2 * i + 2]
        assert distance(after, expected[i]) < 1e-4
        assert before.min() < 0
        assert torch.equal(relu(before), after)


@pytest.mark.parametrize('arch', ['vgg8', 'wrn_16_1', 'ShuffleV2', 'MobileNetV2'])
def test_result_is_complete_and_of_copies(arch):
    state_dict = zoo_state_dict(arch)
    before = {key: value.clone() for key, value in state_dict.items()}
    converted = convert_mdistiller_state_dict(state_dict, arch)
    assert converted.keys() == build(arch).state_dict().keys()
    for value in converted.values():
        value.zero_()
    assert all(torch.equal(state_dict[key], before[key]) for key in before)


def test_bias_before_batch_norm_moves_into_its_mean():
    state_dict = zoo_state_dict('vgg8')
    converted = convert_mdistiller_state_dict(state_dict, 'vgg8')
    mean = state_dict['block2.1.running_mean'] - state_dict['block2.0.bias']
    assert torch.equal(converted['backbone.layer3.conv1.bn.running_mean'], mean)
    # The same in training, where the mean is the batch's, on the model of the zoo's
    # first stage.
    naive = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU()
    )
    prefix = 'block0.'
    naive.load_state_dict(
        {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    )
    ours = load('vgg8', state_dict).train().backbone.layer1
    x = zoo_input('vgg8')
    assert distance(ours(x), naive(x)) < 1e-5
    mean = naive[1].running_mean - naive[0].bias
    assert distance(ours.conv1.bn.running_mean, mean) < 1e-5


def test_data_parallel_old_versions_and_other_classes():
    state_dict = zoo_state_dict('resnet8')
    expected = convert_mdistiller_state_dict(state_dict, 'resnet8')
    parallel = {f'module.{key}': value for key, value in state_dict.items()}
    converted = convert_mdistiller_state_dict(parallel, 'resnet8')
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)
    # torch before 0.4.1 did not count batches.
    old = {k: v for k, v in state_dict.items() if not k.endswith('tracked')}
    converted = convert_mdistiller_state_dict(old, 'resnet8')
    assert converted.keys() == expected.keys()
    assert converted['backbone.bn1.num_batches_tracked'] == 0
    few = dict(state_dict, **{'fc.weight': torch.ones(5, 64), 'fc.bias': torch.ones(5)})
    load('resnet8', few, num_classes=5)


def test_random_state_is_left_alone():
    expected = torch.random.get_rng_state()
    convert_mdistiller_state_dict(zoo_state_dict('resnet14'), 'resnet14')
    assert torch.equal(torch.random.get_rng_state(), expected)


@pytest.mark.parametrize('arch', ARCHS)
def test_networks_are_recognised(arch):
    assert find_mdistiller_archs(zoo_state_dict(arch)) == [arch]


def test_weights_of_another_network_are_named():
    with pytest.raises(ValueError) as error:
        convert_mdistiller_state_dict(zoo_state_dict('resnet14'), 'resnet8')
    message = str(error.value)
    assert message.startswith("These are no weights of 'resnet8': 36 unknown tensors: ")
    assert 'layer1.1.conv1.weight, ' in message and ' and 32 more. ' in message
    assert message.endswith("They are those of 'resnet14': give that name instead.")
    # Capitals tell ImageNet's networks from those of CIFAR.
    imagenet = torchvision.models.resnet18().state_dict()
    with pytest.raises(ValueError, match="They are those of 'resnet18'"):
        convert_mdistiller_state_dict(imagenet, 'ResNet18')


def test_missing_unknown_and_wrong_tensors_are_listed():
    state_dict = zoo_state_dict('ShuffleV1')
    del state_dict['layer2.3.bn2.running_var']
    state_dict['layer9.weight'] = torch.ones(1)
    state_dict['layer1.0.conv1.weight'] = torch.ones(54, 24, 3, 3)
    with pytest.raises(ValueError) as error:
        convert_mdistiller_state_dict(state_dict, 'ShuffleV1')
    message = str(error.value)
    for part in (
        "no weights of 'ShuffleV1': 1 missing tensors (in the names of the result): "
        'backbone.layer2.3.conv2.bn.running_var; ',
        '1 unknown tensors: layer9.weight; ',
        '1 tensors of another shape: layer1.0.conv1.weight (54, 24, 3, 3) instead of '
        '(54, 24, 1, 1). Nor are they those of another network',
    ):
        assert part in message


@pytest.mark.parametrize(
    ('remove', 'add', 'message'),
    [
        ('block0.0.bias', None, 'missing .*: backbone.layer1.conv1.conv.bias'),
        ('classifier.bias', None, 'missing .*: head.fc.bias'),
        (None, ('fc.weight', (100, 512)), 'unknown tensors: fc.weight'),
        (None, ('block0.0.bias', (1,)), r'block0.0.bias \(1,\) instead of \(64,\)'),
        (None, ('classifier.weight', ()), r'classifier.weight \(\) instead of \(100'),
        (None, ('classifier.bias', (7,)), r'bias \(7,\) instead of \(100,\)'),
        (None, ('module.block0.0.bias', (64,)), 'unknown .*: module.block0.0.bias'),
    ],
)
def test_one_wrong_tensor(remove, add, message):
    state_dict = zoo_state_dict('vgg8')
    if remove:
        del state_dict[remove]
    if add:
        state_dict[add[0]] = torch.ones(add[1])
    with pytest.raises(ValueError, match=message):
        convert_mdistiller_state_dict(state_dict, 'vgg8')


@pytest.mark.parametrize(
    ('arch', 'near'),
    [
        ('resnet-56', 'resnet56'),
        ('WRN_40_2', 'wrn_40_2'),
        ('vgg13_bn', 'vgg13'),
        ('mobilenetv2', 'MobileNetV2'),
        ('ShuffleNetV1', 'ShuffleV1'),
    ],
)
def test_unknown_name(arch, near):
    message = (
        rf'arch={arch!r} is no network.*Near names: [^.]*\b{near}\b.*one of resnet8'
    )
    for call in (
        mdistiller_model_cfg,
        lambda name: convert_mdistiller_state_dict(zoo_state_dict('resnet8'), name),
    ):
        with pytest.raises(ValueError, match=message):
            call(arch)


def test_no_state_dict():
    with pytest.raises(ValueError, match="empty state dict.*weights of 'vgg8'"):
        convert_mdistiller_state_dict({}, 'vgg8')
    checkpoint = dict(model=zoo_state_dict('vgg8'), epoch=240)
    message = "model, epoch that are no tensors.*pass what .* under 'model'"
    with pytest.raises(ValueError, match=message):
        convert_mdistiller_state_dict(checkpoint, 'vgg8')


def test_configs_are_independent():
    cfg = mdistiller_model_cfg('resnet20', 10)
    assert cfg['head']['num_classes'] == cfg['data_preprocessor']['num_classes'] == 10
    cfg['backbone']['depth'] = 0
    cfg['data_preprocessor']['mean'].clear()
    assert mdistiller_model_cfg('resnet20')['backbone']['depth'] == 20
    # The zoo's, for images of [0, 255].
    preprocessor = mdistiller_model_cfg('vgg8')['data_preprocessor']
    for key, values in dict(
        mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)
    ).items():
        assert preprocessor[key] == pytest.approx([255 * v for v in values])


@pytest.mark.skipif(
    not (TEACHER.is_file() and TEST_IMAGES.is_file()),
    reason=f'needs the teacher {TEACHER} and the images {TEST_IMAGES}',
)
def test_trained_teacher():
    state_dict = torch.load(TEACHER, weights_only=True)['model']
    assert find_mdistiller_archs(state_dict) == ['resnet56']
    model = load('resnet56', state_dict)
    with np.load(TEST_IMAGES) as arrays:
        images, labels = (arrays[key][:200] for key in ('images', 'labels'))
    inputs = list(torch.from_numpy(images).permute(0, 3, 1, 2))
    with torch.no_grad():
        logits = model(**model.data_preprocessor(dict(inputs=inputs)), mode='tensor')
    assert logits.isfinite().all()
    # It has 57.31 % on all test images.
    right = (logits.argmax(1) == torch.from_numpy(labels)).float().mean()
    assert 0.45 < right < 0.7
