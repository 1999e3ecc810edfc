# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which metrics the best scores of a training are of."""

from itertools import count

import pytest
from mmengine.logging import MessageHub

from mmfakd.engine.best_scores import hand_on_scores, noted_metrics

_numbers = count()


def alone(name):
    return dict(best_score=1.0, best_ckpt=name and f'/runs/{name}')


BY_NAME = dict(best_score_x=1.0, best_ckpt_x='/runs/best_x_epoch_1.pth', best_score_y=2)


@pytest.mark.parametrize(
    ('info', 'several', 'expected'),
    [
        ({}, False, []),
        (dict(best_of=['a/b']), False, ['a/b']),
        # Of earlier versions.
        (alone('best_score_epoch_12.pth'), False, ['score']),
        (alone('best_coco_bbox_mAP_50_iter_900.pth'), False, ['coco_bbox_mAP_50']),
        (alone('best_acc_ckpt_3.pth'), False, ['acc']),
        (alone('other.pth'), False, []),
        (alone(None), False, []),
        (BY_NAME, True, ['x', 'y']),
        (BY_NAME, False, ['x', 'y']),
        ({**BY_NAME, **alone('best_z_epoch_1.pth')}, True, ['x', 'y']),
        ({**BY_NAME, **alone('best_z_epoch_1.pth')}, False, ['z']),
        (alone('best_z_epoch_1.pth'), True, ['z']),
    ],
)
def test_noted_metrics(info, several, expected):
    assert noted_metrics(info, 'ckpt_{}.pth', several) == expected


def test_a_template_that_is_all_number():
    """The longer name is the usual one."""
    info = alone('best_score_epoch_12.pth')
    assert noted_metrics(info, '{}.pth', False) == ['score']


@pytest.mark.parametrize(
    ('before', 'info', 'now', 'expected', 'left'),
    [
        (['a_x'], alone('p'), ['a/x'], alone('p'), {}),
        (['a'], alone('p'), ['b'], {}, dict(a='/runs/p')),
        (['a'], alone(None), ['b'], {}, dict(a=None)),
        # Nothing was best yet.
        (['a'], {}, ['b'], {}, {}),
        ([], alone('p'), ['b'], alone('p'), {}),
        (
            ['x'],
            alone('p'),
            ['x', 'z'],
            dict(best_score_x=1.0, best_ckpt_x='/runs/p'),
            {},
        ),
        (
            ['x', 'y'],
            BY_NAME,
            ['x'],
            alone('best_x_epoch_1.pth'),
            dict(y=None),
        ),
        (
            ['x', 'y'],
            BY_NAME,
            ['y', 'z'],
            dict(best_score_y=2, best_ckpt_y=None),
            dict(x='/runs/best_x_epoch_1.pth'),
        ),
    ],
)
def test_scores_are_left_to_their_metrics(before, info, now, expected, left):
    hub = MessageHub.get_instance(f'best{next(_numbers)}')
    for key, value in dict(info, epoch=3).items():
        hub.update_info(key, value)
    assert hand_on_scores(hub, before, now) == left
    assert dict(hub.runtime_info) == dict(expected, epoch=3)
