# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample

from mmfakd.models.losses import CRDLoss

IMAGES, NEGATIVES, CHANNELS = 12, 5, 4


def build(**kwargs):
    cfg = dict(neg_num=NEGATIVES, sample_n=IMAGES, dim_out=CHANNELS)
    return MODELS.build(dict(type='mmfakd.CRDLoss', **dict(cfg, **kwargs)))


def samples(*indices, negatives=NEGATIVES, dtype=torch.int32, **metainfo):
    made = []
    for i in indices:
        sample = DataSample(metainfo=metainfo)
        others = (torch.arange(negatives) + i + 1) % IMAGES
        contrast = torch.cat([torch.tensor([i]), others]).to(dtype)
        sample.set_field(torch.tensor(i), 'sample_idx')
        sample.set_field(contrast, 'contrast_sample_idxs')
        made.append(sample)
    return made


def embeddings(count=3):
    return [
        F.normalize(torch.randn(count, CHANNELS)).requires_grad_() for _ in range(2)
    ]


def naive(features, bank, data_samples):
    """One direction, by the equation of the docstring; Z from this batch."""
    scores = torch.stack(
        [
            torch.stack([(x @ bank[j] / 0.07).exp() for j in s.contrast_sample_idxs])
            for x, s in zip(features, data_samples)
        ]
    )
    probabilities = scores / (scores.mean() * IMAGES).detach()
    noise = NEGATIVES / IMAGES
    positive = probabilities[:, 0] / (probabilities[:, 0] + noise)
    negative = noise / (probabilities[:, 1:] + noise)
    return -(positive.log().sum() + negative.log().sum()) / len(features)


@pytest.mark.parametrize('weight', [1.0, 0.8])
def test_formula_weight_and_gradients(weight):
    loss = build(loss_weight=weight)
    data = samples(7, 0, 3)
    student, teacher = embeddings()
    # The student's embeddings are in the first bank and meet the second.
    banks = [loss.contrast.memory_v1.clone(), loss.contrast.memory_v2.clone()]
    expected = weight * (
        naive(student, banks[1], data) + naive(teacher, banks[0], data)
    )
    value = loss(student, teacher, data)
    assert value.shape == ()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(value, (student, teacher)),
        torch.autograd.grad(expected, (student, teacher)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_banks_follow_the_images():
    loss = build()
    before = copy.deepcopy(loss.contrast)
    student, teacher = embeddings()
    loss(student, teacher, samples(7, 0, 3))
    rows = [7, 0, 3]
    for bank, feature in (('memory_v1', student), ('memory_v2', teacher)):
        old, new = getattr(before, bank), getattr(loss.contrast, bank)
        mixed = F.normalize(0.5 * old[rows] + 0.5 * feature.detach())
        torch.testing.assert_close(new[rows], mixed)
        others = [i for i in range(IMAGES) if i not in rows]
        assert torch.equal(new[others], old[others])


def test_a_resumed_loss_goes_on():
    """Banks and normalisation are in the state dict."""
    loss, resumed = build(), build()
    loss(*embeddings(), samples(7, 0, 3))
    resumed.load_state_dict(loss.state_dict())
    features, data = embeddings(), samples(1, 2, 4)
    assert torch.equal(loss(*features, data), resumed(*features, data))


@pytest.mark.parametrize('change', [{}, dict(neg_num=3), dict(momentum=0.9)])
def test_a_loaded_loss_has_the_numbers_of_its_config(change):
    """Its banks and its normalisation are the saved ones."""
    loss, resumed = build(), build(**change)
    loss(*embeddings(), samples(7, 0, 3))
    saved = loss.state_dict()
    kept = copy.deepcopy(saved)
    resumed.load_state_dict(saved)
    numbers = dict(dict(neg_num=NEGATIVES, momentum=0.5), **change)
    params = resumed.contrast.params
    assert params.tolist() == pytest.approx(
        [
            numbers['neg_num'],
            0.07,
            *kept['contrast.params'][2:4].tolist(),
            numbers['momentum'],
        ]
    )
    data = samples(1, 2, negatives=numbers['neg_num'])
    assert resumed(*embeddings(2), data).isfinite()
    # What was handed in is as before.
    assert all(torch.equal(value, kept[key]) for key, value in saved.items())


def test_another_temperature_normalises_anew():
    loss, resumed = build(), build(temperature=0.5)
    loss(*embeddings(), samples(7, 0, 3))
    # As a part of a model, whose checkpoint it is.
    saved = torch.nn.ModuleDict(dict(loss=loss)).state_dict()
    torch.nn.ModuleDict(dict(loss=resumed)).load_state_dict(saved)
    assert resumed.contrast.params[1:4].tolist() == [0.5, -1, -1]
    assert torch.equal(resumed.contrast.memory_v1, loss.contrast.memory_v1)
    fresh = build(temperature=0.5)
    for bank in ('memory_v1', 'memory_v2'):
        getattr(fresh.contrast, bank).copy_(getattr(loss.contrast, bank))
    features, data = embeddings(), samples(1, 2, 4)
    assert torch.equal(resumed(*features, data), fresh(*features, data))


def test_size_of_the_banks():
    loss = CRDLoss(sample_n=300, neg_num=4, dim_out=16)
    sizes = [v.numel() for k, v in loss.state_dict().items() if 'memory' in k]
    assert sizes == [300 * 16] * 2


def test_indices_of_either_width():
    loss = build()
    wide = copy.deepcopy(loss)
    features = embeddings()
    narrow_value = loss(*features, samples(7, 0, 3))
    assert torch.equal(
        narrow_value, wide(*features, samples(7, 0, 3, dtype=torch.int64))
    )


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ([DataSample()], "no `contrast_sample_idxs`.*'mmfakd.ContrastiveSamples'"),
        (samples(1, negatives=3), 'neg_num=5, but an image comes with 3 negatives'),
        (samples(1, num_samples=13), 'sample_n=12, but the data set has 13 images'),
        (samples(1, num_samples=11), 'set `sample_n=11`'),
    ],
)
def test_bad_samples(data, message):
    with pytest.raises(ValueError, match=message):
        build()(*embeddings(1), data)


def test_the_right_data_set_is_accepted():
    assert build()(*embeddings(1), samples(1, num_samples=12)).isfinite()


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (dict(temperature=0), 'temperature=0, expected a finite number above 0'),
        (dict(temperature=-1), 'temperature=-1, expected a finite number above 0'),
        (dict(loss_weight=-1), 'loss_weight=-1, expected a finite number of 0 or more'),
        (dict(momentum=None), 'momentum=None, expected a finite number of 0 or more'),
        (dict(momentum=1.5), 'momentum=1.5, expected the weight of the old value'),
        (dict(neg_num=None), 'neg_num=None, expected a positive integer'),
        (dict(sample_n=0), 'sample_n=0, expected a positive integer'),
    ],
)
def test_bad_numbers(given, expected):
    with pytest.raises(ValueError, match=f'CRDLoss got {expected}'):
        build(**given)


def test_copied_after_a_step():
    """Its normalisation keeps no graph of the step that began it."""
    loss = build()
    loss(*embeddings(), samples(7, 0, 3)).backward()
    assert not loss.contrast.params.requires_grad
    again = copy.deepcopy(loss)
    features, data = embeddings(), samples(1, 2, 4)
    assert torch.equal(loss(*features, data), again(*features, data))
