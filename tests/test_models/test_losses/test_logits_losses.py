# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""NKD, standardised and multi-level logits, against their published code."""

import pytest
import torch
from mmengine.registry import MODELS

from tests.helpers.host_sync import no_synchronisation

LABELS = torch.tensor([0, 5, 2, 2])
KD = dict(type='mmrazor.KLDivergence', tau=2)


def inputs(dtype=torch.float64):
    """What the published code was given; a row of the teacher is constant."""
    images, classes = torch.arange(4.0)[:, None], torch.arange(6.0)[None]
    ours = 3 * torch.sin((1 + 2 * images + 3 * classes).double())
    theirs = 5 * torch.cos((2 + images * classes).double())
    return ours.to(dtype).requires_grad_(), theirs.to(dtype)


def nkd(**kwargs):
    return MODELS.build(dict(type='mmfakd.NKDLoss', **kwargs))


def standardized(loss=KD, **kwargs):
    return MODELS.build(dict(type='mmfakd.StandardizedLogitsLoss', loss=loss, **kwargs))


class TestNKD:
    # github.com/yzd-v/cls_KD, mmcls/models/dis_losses/nkd.py on `inputs()`.
    @pytest.mark.parametrize(
        'tau, gamma, value, gradient',
        [
            (1.0, 1.5, 4.442742167810602, [0.0526173611, 0.0149853637, 0.1193586929]),
            (4.0, 0.5, 14.43063615336116, [0.0583057831, 0.0509248062, 0.1029471088]),
        ],
    )
    def test_published_code(self, tau, gamma, value, gradient):
        ours, theirs = inputs()
        loss = nkd(tau=tau, gamma=gamma)(ours, theirs, LABELS)
        loss.backward()
        assert loss.item() == pytest.approx(value, rel=1e-12)
        assert ours.grad[1, :3].tolist() == pytest.approx(gradient, rel=1e-8)

    def test_written_out(self):
        ours, theirs = inputs()
        total = 0.0
        for student, teacher, label in zip(ours, theirs, LABELS):
            s, t = (
                student.exp() / student.exp().sum(),
                teacher.exp() / teacher.exp().sum(),
            )
            total -= t[label] * s[label].log()
            others = [i for i in range(6) if i != label]
            s_rest, t_rest = s[others] / (1 - s[label]), t[others] / (1 - t[label])
            total -= 1.5 * (t_rest * s_rest.log()).sum()
        loss = nkd()(ours, theirs, LABELS)
        torch.testing.assert_close(loss, total / 4)

    def test_ignored_images_do_not_count(self):
        """As in PyTorch's cross entropy, where its mean over none is not a number."""
        ours, theirs = (logits.float() for logits in inputs())
        ours = ours.detach().requires_grad_()
        labels = LABELS.where(torch.tensor([True, False, True, True]), -100)
        loss = nkd()(ours, theirs, labels)
        kept = [0, 2, 3]
        expected = nkd()(ours[kept], theirs[kept], LABELS[kept])
        torch.testing.assert_close(loss, expected)
        gradient, wanted = (torch.autograd.grad(x, ours)[0] for x in (loss, expected))
        torch.testing.assert_close(gradient, wanted)
        assert not gradient[1].any()
        none = nkd()(ours, theirs, torch.full((4,), -100))
        none.backward()
        assert none.item() == 0 and not ours.grad.any()

    def test_other_labels_out_of_range_are_no_images_to_ignore(self):
        with pytest.raises((RuntimeError, IndexError), match='-1'):
            nkd()(*inputs(), torch.tensor([0, -1, 2, 2]))

    def test_nothing_waits_for_the_device(self):
        ours, theirs = inputs()
        with no_synchronisation():
            nkd()(ours, theirs, LABELS).backward()

    def test_weight_one_hot_labels_and_detached_teacher(self):
        ours, theirs = inputs()
        theirs.requires_grad_()
        one_hot = torch.nn.functional.one_hot(LABELS, 6)
        loss = nkd(loss_weight=2.0)(ours, theirs, one_hot)
        torch.testing.assert_close(loss, 2 * nkd()(ours, theirs, LABELS))
        loss.backward()
        assert theirs.grad is None and ours.grad.abs().sum() > 0

    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
    def test_other_precisions(self, dtype):
        ours, theirs = inputs(dtype)
        loss = nkd()(ours, theirs, LABELS)
        assert loss.item() == pytest.approx(4.4427, rel=2e-2)

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match='NKDLoss got tau=0.*above 0'):
            nkd(tau=0)
        with pytest.raises(ValueError, match='gamma=-1'):
            nkd(gamma=-1)
        with pytest.raises(
            ValueError, match=r'student has \(2, 4\), the teacher \(2, 5\)'
        ):
            nkd()(torch.rand(2, 4), torch.rand(2, 5), LABELS[:2])
        with pytest.raises(ValueError, match='2 classes; expected three or more'):
            nkd()(torch.rand(2, 2), torch.rand(2, 2), torch.tensor([0, 1]))


class TestStandardized:
    # github.com/sunshangquan/logit-standardization-KD, KD.py on `inputs()`.
    @pytest.mark.parametrize(
        'tau, value, gradient',
        [
            (2, 0.8675337225617481, [0.0103914970, 0.0225182968, 0.0184089344]),
            (4, 0.8895016131751226, [0.0116215483, 0.0271576148, 0.0190682429]),
        ],
    )
    def test_published_code(self, tau, value, gradient):
        ours, theirs = inputs()
        loss = standardized(dict(KD, tau=tau))(ours, theirs)
        loss.backward()
        assert loss.item() == pytest.approx(value, rel=1e-12)
        assert ours.grad[1, :3].tolist() == pytest.approx(gradient, rel=1e-8)

    def test_scale_and_offset_of_logits_do_not_count(self):
        ours, theirs = inputs()
        loss = standardized()
        moved = loss(7 * ours + 3, 0.1 * theirs - 2)
        torch.testing.assert_close(moved, loss(ours, theirs), rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize(
        'inner',
        [
            dict(type='mmrazor.DKDLoss', tau=2, beta=2),
            dict(type='mmfakd.NKDLoss'),
        ],
    )
    def test_loss_with_labels(self, inner):
        ours, theirs = inputs()

        def z(x):
            return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)

        expected = MODELS.build(inner)(z(ours), z(theirs), LABELS)
        torch.testing.assert_close(standardized(inner)(ours, theirs, LABELS), expected)

    def test_head_that_begins_at_zero_has_finite_gradients(self):
        ours = torch.zeros(4, 6, requires_grad=True)
        standardized()(ours, inputs(torch.float32)[1]).backward()
        assert ours.grad.isfinite().all() and ours.grad.abs().sum() > 0

    def test_what_is_refused(self):
        with pytest.raises(
            ValueError, match=r'\(2, 3, 4, 4\) from the teacher.*head\.fc'
        ):
            standardized()(torch.rand(2, 3), torch.rand(2, 3, 4, 4))
        with pytest.raises(ValueError, match=r'\(2, 1\) from the student'):
            standardized()(torch.rand(2, 1), torch.rand(2, 1))
        for eps in ('1e-7', None, -1, float('nan')):
            with pytest.raises(ValueError, match=f'Loss got eps={eps!r}, expected'):
                standardized(eps=eps)


def two_views():
    """The images above, then another view of them."""
    ours, theirs = (logits.detach() for logits in inputs())
    ours = torch.cat([ours, 2 * ours.cos()]).requires_grad_()
    return ours, torch.cat([theirs, 3 * (theirs + 1).sin()])


def multi_level(**kwargs):
    return MODELS.build(dict(type='mmfakd.MultiLevelLogitsLoss', **kwargs))


STANDARDIZED = dict(taus=(2, 3, 5), standardize=True, loss_weight=9)


class TestMultiLevel:
    # github.com/sunshangquan/logit-standardization-KD, MLKD.py on `two_views()`: the
    # sum of its losses of divergences, classes and images, and two rows of gradients.
    @pytest.mark.parametrize(
        'settings, value, weak, strong',
        [
            (
                dict(),
                22.64794688305899,
                [0.4209032272, 0.3559212285, 0.6446990425],
                [0.1453189477, 0.1136702235, 0.0288527579],
            ),
            (
                STANDARDIZED,
                55.88261758596111,
                [0.5673281149, 1.0224237903, 0.7838263946],
                [13.3312947683, 21.7322088202, 14.2512049418],
            ),
        ],
    )
    def test_published_code(self, settings, value, weak, strong):
        ours, theirs = two_views()
        loss = multi_level(**settings)(ours, theirs)
        loss.backward()
        assert loss.item() == pytest.approx(value, rel=1e-12)
        assert ours.grad[1, :3].tolist() == pytest.approx(weak, rel=1e-8)
        assert ours.grad[6, :3].tolist() == pytest.approx(strong, rel=1e-8)

    def test_one_view_is_its_own_strong_one(self):
        ours, theirs = inputs()
        twice = multi_level()(torch.cat([ours, ours]), torch.cat([theirs, theirs]))
        torch.testing.assert_close(multi_level(views=1)(ours, theirs), twice)

    def test_nothing_to_learn_from_oneself(self):
        _, theirs = two_views()
        assert multi_level()(theirs, theirs).item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
    def test_other_precisions(self, dtype):
        ours, theirs = (logits.detach().to(dtype) for logits in two_views())
        loss = multi_level().to(dtype)(ours, theirs)
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(22.648, rel=2e-2)

    def test_temperatures_are_no_weights(self):
        assert not multi_level().state_dict()

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match='tau=0.*above 0'):
            multi_level(weak_taus=(2, 0))
        with pytest.raises(ValueError, match=r'taus=4\.0, expected a sequence of temp'):
            multi_level(taus=4.0)
        with pytest.raises(ValueError, match='weak_taus=None, expected .*may be empty'):
            multi_level(weak_taus=None)
        assert multi_level(weak_taus=()).shared == 3
        with pytest.raises(ValueError, match='views=3.*1 or 2'):
            multi_level(views=3)
        with pytest.raises(ValueError, match=r'\(3, 5\).*mmfakd\.collate_views'):
            multi_level()(torch.rand(3, 5), torch.rand(3, 5))


def test_labels_of_another_shape():
    ours, theirs = inputs()
    with pytest.raises(ValueError, match=r'labels \(4, 1\) for logits \(4, 6\)'):
        nkd()(ours, theirs, LABELS[:, None])
    one_hot = torch.nn.functional.one_hot(LABELS, 6)
    assert torch.equal(nkd()(ours, theirs, one_hot), nkd()(ours, theirs, LABELS))


@pytest.mark.parametrize('rate, name', [(1e-3, 'AdamW'), (0.05, 'SGD')])
def test_head_that_begins_at_zero(rate, name):
    """As mmpretrain's of a ViT: nothing to standardise, until labels have moved it."""
    images = torch.randn(256, 192)
    theirs = images @ torch.randn(192, 10) / 192**0.5 * 4
    head, loss = torch.nn.Linear(192, 10), standardized(dict(KD, loss_weight=9))
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    first = torch.autograd.grad(loss(head(images), theirs), head.weight)[0]
    assert 0 < first.norm() < 1e3
    labels, criterion = theirs.argmax(1), torch.nn.CrossEntropyLoss()
    optimizer = getattr(torch.optim, name)(head.parameters(), rate)
    for _ in range(300):
        ours = head(images)
        optimizer.zero_grad()
        (loss(ours, theirs) + 0.1 * criterion(ours, labels)).backward()
        optimizer.step()
    assert (head(images).argmax(1) == labels).float().mean() > 0.8
