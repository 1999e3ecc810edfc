# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""All that the config of a pair states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmfakd.model_zoo.find import find_weights

from .candidate import Candidate
from .features import Feature
from .input_size import InputSize, read_input_size
from .matching import Matching

METHODS = {
    'fakd-review': 'FAM-KD in the review pyramid (arXiv 2403.05894)',
    'fakd-layer': 'FAM-KD layer to layer (arXiv 2403.05894)',
    'reviewkd': 'ReviewKD (arXiv 2104.09044)',
    'kd': 'KD (arXiv 1503.02531)',
}


@dataclass
class Plan:
    """What was asked for, and what was found.

    Args:
        student (Candidate): The student.
        teacher (Candidate): The teacher.
        method (str): A key of :data:`METHODS`.
        levels (str): ``'auto'``, or names as for
            :func:`~mmfakd.pairing.named_levels.match_named_levels`.
        input_size (tuple[int, int], optional): Height and width of the images.
            Defaults to None: as the student's pipeline has them.
        command (str): The command, for the comment on top of the config.
        teacher_ckpt (str, optional): The teacher's weights. Defaults to None: those
            that its model zoo publishes.
        student_ckpt (str, optional): Weights that the student starts from. Defaults to
            None: the ``load_from`` of its config.
        inherit (Sequence[str]): Modules that start as copies of the teacher's.
        padding (int, optional): What sizes of batches are to be multiples of, where
            the student's own padding does not suit the teacher.
        matching (Matching): The levels of the two; for KD the layers of the logits.
    """

    student: Candidate
    teacher: Candidate
    method: str = 'fakd-review'
    levels: str = 'auto'
    input_size: tuple[int, int] | None = None
    command: str = ''
    teacher_ckpt: str | None = None
    student_ckpt: str | None = None
    inherit: Sequence[str] = ()
    padding: int | None = None
    matching: Matching = field(default_factory=lambda: Matching([], ''))

    @property
    def pairs(self) -> list[tuple[Feature, Feature]]:
        """list[tuple[Feature, Feature]]: matched levels, shallow to deep."""
        return self.matching.pairs

    @property
    def fixed(self) -> bool:
        """bool: whether all images have the probed size."""
        return self.student.kind == 'classifier'

    @property
    def read_size(self) -> InputSize | None:
        """Optional[InputSize]: what the student's pipeline brings images to."""
        return read_input_size(self.student.cfg)

    @property
    def teacher_weights(self) -> str | None:
        """Optional[str]: the teacher's weights, its model zoo's if none are given."""
        if self.teacher_ckpt is not None:
            return self.teacher_ckpt
        return find_weights(self.teacher.config, self.teacher.name)

    @property
    def student_weights(self) -> str | None:
        """Optional[str]: those given, or the ``load_from`` of the student's config."""
        given = self.student_ckpt
        return self.student.cfg.get('load_from') if given is None else given

    @property
    def mid_channels(self) -> list[int]:
        """list[int]: the student's, made even as local cross attention needs them."""
        return [ours.channels + ours.channels % 2 for ours, _ in self.pairs]
