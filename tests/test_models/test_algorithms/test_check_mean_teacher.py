# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A hook that would overwrite the teacher, under anybody's train script."""

import pytest
from mmengine.hooks import EMAHook, Hook

from mmfakd.models.algorithms.check_mean_teacher import check_mean_teacher
from tests.helpers.tiny_runs import distillation, run_config, student, train
from tests.helpers.toy import review_distiller


class MeanTeacherHook(Hook):
    """Has the name of mmdet's."""


class Slower(MeanTeacherHook):
    """One of the user's own."""


@pytest.mark.parametrize('kind', [MeanTeacherHook, Slower])
def test_by_the_name_of_a_class_or_of_its_base(kind):
    message = f'{kind.__name__} would overwrite the teacher .* out of `custom_hooks`'
    with pytest.raises(ValueError, match=message):
        check_mean_teacher([Hook(), kind()])


def test_other_hooks():
    check_mean_teacher([])
    check_mean_teacher([Hook(), EMAHook()])


def test_without_the_hooks_of_mmfakd(tmp_path):
    """The model looks for itself, before its first step."""
    alike = review_distiller(width=2, teacher_width=2)
    model = distillation(None, teacher=student(), distiller=alike)
    hooks = [dict(type='mmdet.MeanTeacherHook')]
    with pytest.raises(ValueError, match='MeanTeacherHook would overwrite'):
        train(run_config(tmp_path, model, epochs=1, hooks=hooks))
