# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A distillation's teacher, evaluated on what it sees there."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModel
from torch import Tensor

from mmfakd.registry import MODELS

from .feature_distill import FeatureDistill, _pretrained


@MODELS.register_module()
class TeacherEvaluation(FeatureDistill):
    """Predictions of the teacher in place of the student's.

    The batch is made by the student's preprocessor and re-normalised for the teacher
    as :class:`FeatureDistill` does it, so a teacher that is given the wrong input
    shows in its score. Nothing is distilled, and nothing learns.

    Args:
        architecture (dict | BaseModel): The student, of which only the preprocessor
            is used.
        teacher (dict | BaseModel): The teacher.
        teacher_ckpt (str, optional): The teacher's weights, which must be complete.
        teacher_preprocessor (dict, optional): As in :class:`FeatureDistill`.
        data_preprocessor (dict, optional): As in :class:`FeatureDistill`.

    Shapes:
        Inputs are batches (N, C, H, W) as the student's preprocessor makes them.
    """

    def __init__(
        self,
        architecture: dict | BaseModel,
        teacher: dict | BaseModel,
        teacher_ckpt: str | None = None,
        teacher_preprocessor: dict | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(
            architecture=architecture,
            teacher=teacher,
            distiller=dict(type='mmrazor.ConfigurableDistiller'),
            teacher_ckpt=teacher_ckpt,
            # Its head is needed too, not only what is recorded.
            teacher_mode='tensor',
            teacher_preprocessor=teacher_preprocessor,
            data_preprocessor=data_preprocessor,
        )

    def init_weights(self) -> None:
        """Load the teacher's weights; the student's do not matter.

        Raises:
            FileNotFoundError: If the checkpoint is neither a file nor a known name.
            ValueError: If there are no weights for the whole teacher, or they do not
                fit.
        """
        # Without a checkpoint only a pretrained `init_cfg` of the whole model will do.
        if self.teacher_ckpt is not None or _pretrained(self.teacher):
            self._init_teacher()
        if not self._teacher_has_weights:
            raise ValueError(
                'The teacher has no weights, or not for all of its layers, so there is '
                'no score to check. Give `teacher_ckpt` (on the command line '
                '`--teacher-ckpt`) or, with a `cfg_path` of a package, '
                '`pretrained=True`.'
            )

    def _predict(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        inputs = self.teacher_input(inputs, data_samples)
        return self.teacher(inputs, data_samples, mode='predict')


__all__ = ['TeacherEvaluation']
