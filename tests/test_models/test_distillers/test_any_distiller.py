# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmrazor's own distillers are served as ours are."""

from mmengine.registry import MODELS
from mmrazor.models.distillers import ConfigurableDistiller, OFDDistiller

from mmfakd.models.distillers.any_distiller import compared_levels, hook_of
from mmfakd.models.distillers.level import Level
from tests.helpers.toy import LEVELS, layer_distiller, review_distiller


def test_hooks_of_stock_distillers():
    assert hook_of(ConfigurableDistiller(), 'begin_step')(1, 2) is None
    stock = OFDDistiller()
    hook = hook_of(stock, 'teacher_loaded', 'init_ofd_connectors')
    assert hook == stock.init_ofd_connectors
    ours = MODELS.build(review_distiller())
    hook = hook_of(ours, 'teacher_loaded', 'init_ofd_connectors')
    assert hook == ours.teacher_loaded


def test_what_losses_compare():
    assert compared_levels(MODELS.build(layer_distiller())) == dict(
        loss_fam=[
            Level('feature', from_student=True, connector='fam'),
            Level('feature', from_student=False),
        ]
    )
    review = MODELS.build(dict(review_distiller(), student_levels=LEVELS[:2]))
    compared = compared_levels(review)
    assert list(compared) == [f'loss_level{i}' for i in range(4)]
    assert compared['loss_level3'] == [Level(LEVELS[3], from_student=False)]
