# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A distillation's teacher, evaluated on what it sees there."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModel
from mmrazor.models.algorithms import BaseAlgorithm
from torch import Tensor

from mmfakd.registry import MODELS

from .built_models import build_model, is_pretrained
from .loaded_weights import loaded_in_constructor
from .teacher import Teacher
from .teacher_input import TeacherInput


@MODELS.register_module()
class TeacherEvaluation(BaseAlgorithm):
    """Predictions of the teacher in place of the student's.

    The batch is made by the student's preprocessor and re-normalised for the teacher
    as in :class:`FeatureDistill`, so a teacher that is given the wrong input
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
        student, _ = build_model(architecture, 'architecture', data_preprocessor)
        super().__init__(student, module_inplace=True)
        self._teacher = Teacher(
            teacher, student, teacher_ckpt, preprocessor=teacher_preprocessor
        )
        self.teacher_ckpt = self._teacher.ckpt

    @property
    def teacher(self) -> BaseModel:
        """BaseModel: the teacher, which is no submodule."""
        return self._teacher.model

    @property
    def teacher_input(self) -> TeacherInput:
        """TeacherInput: what makes the teacher's batch of the student's."""
        return self._teacher.input

    def init_weights(self) -> None:
        """Load the teacher's weights; the student's do not matter.

        Raises:
            FileNotFoundError: If the checkpoint is neither a file nor a known name.
            ValueError: If there are no weights for the whole teacher, or they do not
                fit.
        """
        # Without a checkpoint only a pretrained `init_cfg` of the whole model will do,
        # or what its constructor has loaded.
        own = is_pretrained(self.teacher) or loaded_in_constructor(self.teacher)
        if self.teacher_ckpt is not None or own:
            self._teacher.fill()
        if not self._teacher.has_weights:
            raise ValueError(
                'The teacher has no weights, or not for all of its layers, so there is '
                'no score to check. Give `teacher_ckpt` (on the command line '
                '`--teacher-ckpt`) or, with a `cfg_path` of a package, '
                '`pretrained=True`.'
            )

    def _predict(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        return self._teacher.predict(inputs, data_samples)
