# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Golden vectors of the mdistiller zoo: numbers of the published networks.

``data/golden/cifar_nets/NAME.keys.json`` has the tensors and shapes of a network,
``NAME.npz`` what it computed in evaluation mode with weights by :func:`fill`: logits,
pooled features, and per stage the mean over batch and pixels after and before the
activation (``feat{i}_mean``, ``preact{i}_mean``; 0 is the stem).
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import MODELS
from mmrazor.models.task_modules.recorder import RecorderManager

from mmfakd.checkpoints.mdistiller_zoo import mdistiller_model_cfg
from mmfakd.models.algorithms.built_models import disable_inplace
from tests.helpers.golden import load_golden

_FOLDER = Path(__file__).parents[1] / 'data' / 'golden' / 'cifar_nets'
_DATA = Path(__file__).resolve().parents[3] / 'shared/data'
TEACHER = _DATA / 'teachers/resnet56_cifar100.pth'
TEST_IMAGES = _DATA / 'cifar100/test.npz'

ARCHS = sorted(path.name.split('.')[0] for path in _FOLDER.glob('*.keys.json'))


def fill(key, shape):
    """The value of a tensor, which depends on its name and shape alone."""
    random = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    if key.endswith('num_batches_tracked'):
        return torch.tensor(1)
    if key.endswith('running_var'):
        value = random.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        value = random.uniform(-0.1, 0.1, shape)
    elif len(shape) == 1:
        low, high = (0.5, 1) if key.endswith('weight') else (-0.1, 0.1)
        value = random.uniform(low, high, shape)
    else:
        value = random.uniform(-1, 1, shape) * np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def zoo_state_dict(arch):
    """Weights of a network in the names of the zoo."""
    shapes = json.loads((_FOLDER / f'{arch}.keys.json').read_text())
    return {key: fill(key, shape) for key, shape in shapes.items()}


def zoo_input(arch):
    """The images that the numbers are of."""
    if arch == 'MobileNetV1':
        return random_images(224, 1, 224)
    return torch.from_numpy(np.load(_FOLDER / 'input.npy'))


def random_images(seed, count, size):
    """Images that do not depend on the version of torch."""
    images = np.random.RandomState(seed).randn(count, 3, size, size)
    return torch.from_numpy(images.astype(np.float32))


def zoo_golden(arch):
    """What the published network computed."""
    return load_golden(f'cifar_nets/{arch}')


def build(arch, **kwargs):
    """Our network of that name."""
    return MODELS.build(mdistiller_model_cfg(arch, **kwargs))


def output(name):
    """Recorder of a module's output, and which record is meant."""
    return dict(type='mmrazor.ModuleOutputs', source=name), {}


def last_relu(name, calls=2):
    """Recorder of what enters a block's one ReLU at its last call."""
    recorder = dict(type='mmrazor.ModuleInputs', source=f'{name}.relu')
    return recorder, dict(record_idx=calls - 1, data_idx=0)


def _resnet_levels(counts, calls=2):
    return [
        (
            output(f'backbone.layer{i}'),
            last_relu(f'backbone.layer{i}.{n - 1}', calls),
        )
        for i, n in enumerate(counts, 1)
    ]


def _levels(*names):
    return [tuple(output(f'backbone.{name}') for name in pair) for pair in names]


def levels(arch):
    """Stages from the first on: recorders after and before the activation."""
    blocks = {8: 1, 14: 2, 20: 3, 32: 5, 44: 7, 56: 9, 110: 18}
    if arch.startswith('resnet'):
        if arch in ('resnet18', 'resnet34', 'resnet50'):
            counts = (2, 2, 2, 2) if arch == 'resnet18' else (3, 4, 6, 3)
            return _resnet_levels(counts, calls=3 if arch == 'resnet50' else 2)
        return _resnet_levels([blocks[int(arch[6:].split('x')[0])]] * 3)
    if arch == 'ResNet18':
        return _resnet_levels((2, 2, 2, 2))
    if arch == 'ResNet50':
        return _resnet_levels((3, 4, 6, 3), calls=3)
    if arch.startswith('wrn'):
        # The sums that enter the next stage; its first norm.
        return _levels(
            ('layer1', 'layer2.0.bn1'), ('layer2', 'layer3.0.bn1'), ('layer3', 'bn1')
        )
    if arch.startswith('vgg'):
        counts = dict(
            vgg8=(1, 1, 1, 1, 1),
            vgg11=(1, 1, 2, 2, 2),
            vgg13=(2, 2, 2, 2, 2),
            vgg16=(2, 2, 3, 3, 3),
            vgg19=(2, 2, 4, 4, 4),
        )[arch]
        names = [(f'layer{i}', f'layer{i}.conv{n}.bn') for i, n in enumerate(counts, 1)]
        return _levels(*names)
    if arch.startswith('Shuffle'):
        names = [(f'layer{i}', f'layer{i}.{n}.preact') for i, n in zip('123', '373')]
        return _levels(*names)
    if arch == 'MobileNetV1':
        last = zip('1234', '2151')
        return _levels(
            *((f'layer{i}', f'layer{i}.{n}.pointwise_conv.bn') for i, n in last)
        )
    assert arch == 'MobileNetV2'
    return _levels(*[(f'layer{i}', f'layer{i}') for i in range(1, 5)])


def record(model, x, recorders, grad=False):
    """Run a model; returns its logits and what the recorders have."""
    disable_inplace(model)
    manager = RecorderManager({str(i): cfg for i, (cfg, _) in enumerate(recorders)})
    manager.initialize(model)
    with torch.set_grad_enabled(grad), manager:
        logits = model(x)
    records = [
        manager.get_recorder(str(i)).get_record_data(**which)
        for i, (_, which) in enumerate(recorders)
    ]
    return logits, records
