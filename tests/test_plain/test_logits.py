# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Predictions are found, and which of their dimensions is that of the classes."""

import pytest
import torch

from mmfakd.plain.logits import check_logits, has_classes_last, logits_in

TOKENS = torch.zeros(2, 12, dtype=torch.long)


@pytest.mark.parametrize(
    ('inputs', 'shape', 'last'),
    [
        ([TOKENS], (2, 12, 5), True),
        ([TOKENS], (2, 5, 12), False),
        # With a prompt before them, or the last one alone.
        ([TOKENS], (2, 15, 5), True),
        ([TOKENS], (2, 1, 5), True),
        # Those of an encoder and of a decoder.
        ([TOKENS, TOKENS[:, :7]], (2, 7, 5), True),
        # Series, by what they share with the predictions.
        ([torch.zeros(2, 12, 3)], (2, 12, 5), True),
        ([torch.zeros(2, 3, 12)], (2, 5, 12), False),
        # Points, which the model turns.
        ([torch.zeros(2, 64, 3)], (2, 5, 64), False),
        ([torch.zeros(2, 3, 64)], (2, 64, 5), True),
        # Of these it is known.
        ([TOKENS], (2, 5), False),
        ([torch.zeros(2, 3, 8, 8)], (2, 5, 8, 8), False),
    ],
)
def test_where_classes_are(inputs, shape, last):
    assert has_classes_last(torch.zeros(shape), inputs, 'student') is last


@pytest.mark.parametrize(
    ('inputs', 'shape'),
    [
        ([TOKENS], (2, 12, 12)),
        ([torch.zeros(2, 3, 8, 8)], (2, 100, 5)),
        ([torch.zeros(2, 3, 12)], (2, 5, 10)),
    ],
)
def test_where_classes_are_is_not_known(inputs, shape):
    with pytest.raises(ValueError, match=r'The teacher predicts .*\(N, L, classes\)'):
        has_classes_last(torch.zeros(shape), inputs, 'teacher')


@pytest.mark.parametrize(
    ('shape', 'said'),
    [
        ((4,), r'predict \(4,\): expected \(N, classes, ...\)'),
        ((4, 1), r'predict \(4, 1\): a softmax over one class is constant'),
        ((4, 1, 8, 8), 'a softmax over one class is constant'),
    ],
)
def test_what_cannot_be_compared(shape, said):
    with pytest.raises(ValueError, match=said):
        check_logits(torch.zeros(shape), torch.zeros(shape))


def test_logits_are_found():
    loss, logits, more = torch.zeros(()), torch.zeros(2, 5), torch.zeros(2, 8)
    for output in (logits, (logits, more), [loss, loss, logits], dict(logits=logits)):
        assert logits_in(output) is logits
    for output in ((), (loss,), (None, logits), dict(out=logits), None):
        assert logits_in(output) is None
