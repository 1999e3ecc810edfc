# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import math

import pytest
import torch
from mmengine.registry import MODELS
from torch.autograd import gradcheck

from mmfakd.models.losses import FFTFeatureLoss, fft_feature_loss

DOMAINS = ['complex', 'amplitude', 'phase', 'log_amplitude']
SIZES = [(1, 1), (1, 4), (5, 2), (7, 7), (8, 8), (9, 12)]


def features(*shape, dtype=torch.float64):
    return torch.randn(2, *shape, dtype=dtype).unbind()


@pytest.mark.parametrize('size', SIZES)
def test_parseval(size):
    student, teacher = features(2, 3, *size)
    expected = (student - teacher).square().mean()
    loss = fft_feature_loss(student, teacher)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize('size', SIZES)
def test_equals_the_full_spectrum(size):
    student, teacher = features(2, 3, *size)
    s, t = (torch.fft.fft2(x, norm='ortho') for x in (student, teacher))

    def check(domain, expected):
        loss = fft_feature_loss(student, teacher, domain=domain)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)

    check('amplitude', (s.abs() - t.abs()).square().mean())
    check('log_amplitude', (s.abs().log1p() - t.abs().log1p()).square().mean())
    # The floor of 1e-3 shows in weak coefficients only.
    phase = 2 - 2 * (s.angle() - t.angle()).cos()
    loss = fft_feature_loss(student, teacher, domain='phase')
    assert loss.item() == pytest.approx(phase.mean().item(), abs=1e-2)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('focal_alpha', [0, 1.0])
def test_band_and_focal_weight_equal_the_full_spectrum(size, focal_alpha):
    student, teacher = features(2, 3, *size)
    low, high = 0.2, 0.45
    s, t = (torch.fft.fft2(x, norm='ortho') for x in (student, teacher))
    row, column = (torch.fft.fftfreq(n, dtype=torch.float64) for n in size)
    frequency = (row[:, None] ** 2 + column**2).sqrt()
    inside = (low <= frequency) & (frequency < high)
    error = (s - t).abs() * inside
    weight = error / error.amax((-2, -1), keepdim=True).clamp_min(1e-300)
    expected = (weight**focal_alpha * error**2).mean() if inside.any() else 0
    loss = fft_feature_loss(student, teacher, band=(low, high), focal_alpha=focal_alpha)
    assert loss.item() == pytest.approx(float(expected), rel=1e-9)


def test_invariances():
    student = features(2, 3, 8, 8)[0]
    shifted, contrasted = student.roll((1, 3), (-2, -1)), 3 * student
    assert fft_feature_loss(shifted, student, domain='amplitude') < 1e-20
    assert fft_feature_loss(shifted, student, domain='phase') > 0.1
    assert fft_feature_loss(contrasted, student, domain='phase') < 1e-4
    assert fft_feature_loss(contrasted, student, domain='amplitude') > 0.1
    opposite = fft_feature_loss(-student, student, domain='phase')
    assert opposite.item() == pytest.approx(4, rel=1e-2)


def test_adjoining_bands_add_up():
    student, teacher = features(2, 3, 9, 8)
    parts = [(0, 0.1), (0.1, 0.3), (0.3, 1)]
    losses = [fft_feature_loss(student, teacher, band=band).item() for band in parts]
    whole = fft_feature_loss(student, teacher).item()
    assert sum(losses) == pytest.approx(whole, rel=1e-9)
    # The lowest band of a map is its mean.
    mean = (student - teacher).mean((-2, -1)).square().mean()
    assert losses[0] == pytest.approx(mean.item(), rel=1e-9)


@pytest.mark.parametrize(
    ('size', 'wave', 'edge'),
    [
        ((25, 25), (0, 5), 0.2),
        ((25, 25), (20, 0), 0.2),
        # On both axes: 3, 4 and 5.
        ((25, 25), (3, 4), 0.2),
        ((10, 20), (3, 8), 0.5),
        ((10, 10), (3, 0), 0.1 + 0.2),
        ((75, 75), (0, 25), 1 / 3),
        ((8, 8), (4, 4), 0.5**0.5),
        ((8, 8), (0, 0), 0),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_a_wave_at_the_edge_of_a_band(size, wave, edge, dtype):
    """It is in the band that begins there, and not in the one below."""
    spectrum = torch.zeros(size, dtype=torch.complex128)
    spectrum[wave] = 1
    student = torch.fft.ifft2(spectrum).real.to(dtype)[None, None]
    teacher = torch.zeros_like(student)
    whole = fft_feature_loss(student, teacher)
    above = FFTFeatureLoss(band=(edge, 1))(student, teacher)
    torch.testing.assert_close(above, whole)
    if edge:
        below = fft_feature_loss(student, teacher, band=(0, edge))
        assert below < 1e-9 * whole
    if edge < 0.7:
        narrow = FFTFeatureLoss(band=(edge, edge + 1e-6))(student, teacher)
        torch.testing.assert_close(narrow, whole)


def test_a_band_that_a_feature_lacks_contributes_nothing():
    student, teacher = features(2, 3, 1, 1)
    student.requires_grad_()
    loss = fft_feature_loss(student, teacher, band=(0.1, 0.3), focal_alpha=1)
    loss.backward()
    assert loss == 0 and (student.grad == 0).all()


def test_a_band_that_no_map_has_is_refused():
    loss = FFTFeatureLoss(band=(0.1, 0.45))
    text = r'band=\(0.1, 0.45\), but a map of 2 x 2 .* It has 0, 0.5, 0.707 cycles per'
    for _ in range(2):
        with pytest.raises(ValueError, match=text):
            loss(*features(2, 3, 2, 2))
        with pytest.raises(ValueError, match='2 x 2'):
            loss(*([f, f[..., :1, :1]] for f in features(2, 3, 2, 2)))


def test_a_band_that_only_some_maps_have():
    """A pooled feature beside others, and small batches of detectors."""
    loss = FFTFeatureLoss(band=(0.1, 0.45))
    assert loss(*features(2, 3, 1, 1)) == 0
    assert loss(*([f, f[..., :2, :2]] for f in features(2, 3, 4, 4))) > 0
    assert loss(*features(2, 3, 2, 2)) == 0


def test_focal_weight():
    student, teacher = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    teacher[0, 0] += 0.1  # one coefficient: the weight is 1
    plain = fft_feature_loss(student, teacher)
    focal = fft_feature_loss(student, teacher, focal_alpha=1)
    assert focal.item() == pytest.approx(plain.item())
    # It carries no gradient: the loss of weights w grows as w * d ** 2.
    student = torch.randn(1, 1, 8, 8, requires_grad=True)
    (focal,) = torch.autograd.grad(
        fft_feature_loss(student, teacher, focal_alpha=2), student
    )
    error = torch.fft.fft2(student - teacher, norm='ortho')
    weight = (error.abs() / error.abs().max()).detach() ** 2
    (expected,) = torch.autograd.grad((weight * error.abs() ** 2).mean(), student)
    assert torch.allclose(focal, expected, atol=1e-6)


@pytest.mark.parametrize('focal_alpha', [0, 1.0])
@pytest.mark.parametrize('domain', DOMAINS)
def test_gradients_are_finite_at_zero(domain, focal_alpha):
    teacher = torch.randn(2, 3, 8, 8)
    for student in (torch.zeros(2, 3, 8, 8), teacher.clone()):
        student.requires_grad_()
        fft_feature_loss(student, teacher, domain, focal_alpha=focal_alpha).backward()
        assert student.grad.isfinite().all()


@pytest.mark.parametrize('domain', DOMAINS)
def test_gradcheck(domain):
    student, teacher = features(1, 2, 3, 4)
    assert gradcheck(
        lambda x: fft_feature_loss(x, teacher, domain, band=(0, 0.5)),
        student.requires_grad_(),
    )


@pytest.mark.parametrize('domain', DOMAINS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(domain, dtype):
    student, teacher = features(2, 3, 7, 6, dtype=torch.float32)
    expected = fft_feature_loss(student.to(dtype).float(), teacher, domain)
    student = student.to(dtype).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = fft_feature_loss(student, teacher, domain)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert student.grad.dtype == dtype and student.grad.isfinite().all()


def test_sequences_and_vectors():
    pairs = [features(2, 3, 8, 8), features(2, 5)]
    students, teachers = zip(*pairs)
    expected = sum((s - t).square().mean() for s, t in pairs)
    loss = fft_feature_loss(students, list(teachers))
    assert loss.item() == pytest.approx(expected.item())
    prediction = students[1][..., None, None]
    expected = (students[1] - teachers[1]).square().mean()
    loss = fft_feature_loss(prediction, teachers[1])
    assert loss.item() == pytest.approx(expected.item())


def test_class():
    loss = MODELS.build(
        dict(
            type='mmfakd.FFTFeatureLoss',
            loss_weight=3.0,
            domain='phase',
            band=[0, 0.4],
            focal_alpha=1,
        )
    )
    assert isinstance(loss, FFTFeatureLoss)
    student, teacher = features(2, 3, 8, 8)
    expected = fft_feature_loss(student, teacher, 'phase', (0, 0.4), 1)
    actual = loss(s_feature=student, t_feature=teacher)
    assert actual.item() == pytest.approx(3 * expected.item())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'domain': 'power'}, "domain='power', expected one of 'complex', 'ampl"),
        ({'band': (0.3, 0.1)}, r'band=\(0.3, 0.1\), expected two frequencies'),
        ({'band': (-0.1, 0.1)}, 'cycles per pixel with 0 <= low'),
        ({'band': (0.71, 1)}, '0.7071, the highest'),
        ({'band': (0.1,)}, r'band=\(0.1,\)'),
        ({'band': (0, math.nan)}, 'nan'),
        ({'band': 0.25}, 'band=0.25, expected two frequencies'),
        ({'band': (None, 0.25)}, r'band=\(None, 0.25\), expected two frequencies'),
        ({'band': '01'}, "band='01', expected two frequencies"),
        ({'focal_alpha': -1}, 'focal_alpha=-1, expected a finite number of 0 or more'),
        ({'focal_alpha': None}, 'focal_alpha=None, expected a finite number'),
        ({'focal_alpha': math.nan}, 'focal_alpha=nan, expected a finite number'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FFTFeatureLoss(**arguments)
    with pytest.raises(ValueError, match=message):
        fft_feature_loss(torch.ones(1, 1), torch.ones(1, 1), **arguments)


@pytest.mark.parametrize(
    ('student', 'teacher', 'error', 'message'),
    [
        ([torch.ones(1, 1)], [], ValueError, 'got 1 student and 0 teacher features'),
        ([], [], ValueError, 'at least one'),
        (
            [torch.ones(1, 1), torch.ones(1, 2, 4, 4)],
            [torch.ones(1, 1), torch.ones(1, 3, 4, 4)],
            ValueError,
            r'level 1: .*\(1, 2, 4, 4\) and a teacher feature of shape \(1, 3, 4, 4\)',
        ),
        (torch.ones(1, 2, 3), torch.ones(1, 2, 3), ValueError, 'expected two of one'),
        (
            torch.ones(1, 1, dtype=torch.complex64),
            torch.ones(1, 1),
            TypeError,
            'level 0: got features of dtype torch.complex64',
        ),
    ],
)
def test_bad_inputs(student, teacher, error, message):
    with pytest.raises(error, match=message):
        FFTFeatureLoss()(student, teacher)


@pytest.mark.parametrize('weight', [-1, float('nan'), float('inf'), 'x', None])
def test_bad_weight(weight):
    with pytest.raises(ValueError, match=f'got loss_weight={weight!r}, expected'):
        FFTFeatureLoss(loss_weight=weight)


def test_edges_of_single_precision():
    """As torch.linspace yields them: they are the frequencies that they round."""
    low, high = torch.linspace(0, 0.5, 6).tolist()[1:3]
    wave = torch.cos(torch.arange(10) * (2 * torch.pi / 10)).expand(1, 1, 10, 10)
    zeros = torch.zeros_like(wave)
    whole = FFTFeatureLoss()(wave, zeros)
    torch.testing.assert_close(FFTFeatureLoss(band=(low, high))(wave, zeros), whole)
    assert FFTFeatureLoss(band=(0, low))(wave, zeros) < 1e-6 * whole
