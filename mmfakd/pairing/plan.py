# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""All that the config of a pair states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mmengine.registry import DATASETS, DefaultScope

from mmfakd.engine.safety import loops_by_epoch
from mmfakd.model_zoo.find import find_weights
from mmfakd.models.algorithms.normalisation import choose_channels

from .candidate import Candidate
from .features import Feature
from .input_size import (
    InputSize,
    augmented_size,
    has_square_batches,
    measure_images,
    pad_size_divisor,
    padded_size,
    preprocessor_of,
    read_input_size,
)
from .loss_weight import DEFAULT_LOSS_WEIGHT, LossWeight, is_balanced, parse_loss_weight
from .matching import Matching
from .methods import METHODS
from .new_style import is_new_style


@dataclass
class Plan:
    """What was asked for, and what was found.

    Args:
        student (Candidate): The student.
        teacher (Candidate): The teacher.
        method (str): A key of :data:`~mmfakd.pairing.methods.METHODS`.
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
        loss_weight (str, optional): As for
            :func:`~mmfakd.pairing.loss_weight.parse_loss_weight`. Defaults to None,
            for ``DEFAULT_LOSS_WEIGHT``.
        warmup (int, optional): Epochs, in an iteration based loop iterations, over
            which the weight grows. Defaults to None, none.
        padding (int, optional): What sizes of batches are to be multiples of, where
            the student's own padding does not suit the teacher.
        matching (Matching): The levels of the two; for KD the layers of the logits.
    """

    student: Candidate
    teacher: Candidate
    method: str
    levels: str = 'auto'
    input_size: tuple[int, int] | None = None
    command: str = ''
    teacher_ckpt: str | None = None
    student_ckpt: str | None = None
    inherit: Sequence[str] = ()
    loss_weight: str | None = None
    warmup: int | None = None
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
    def new_style(self) -> bool:
        """bool: whether the student's config is pure Python."""
        return is_new_style(self.student.config)

    @property
    def of_logit_maps(self) -> bool:
        """bool: whether it compares the logits of two segmentors."""
        kinds = {self.student.kind, self.teacher.kind}
        named = self.method == 'cwd' and self.levels != 'auto'
        return self.method in ('kd', 'cwd') and kinds == {'segmentor'} and not named

    @cached_property
    def read_size(self) -> InputSize | None:
        """Optional[InputSize]: what the student's pipeline brings images to.

        Where it does not say so, the first images do.
        """
        read = read_input_size(self.student.cfg)
        if read is None or (self.fixed and not read.fixed):
            return measure_images(self.student.cfg) or read
        return read

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Optional[tuple[int, int]]: height and width of the user's own batches.

        Of images of many sizes, a large one, padded as batches are; None where nothing
        says it.
        """
        if self.fixed or self.input_size is not None:
            return self.student.probe.input_shape[2:]  # type: ignore[return-value]
        return self.configured_size

    @property
    def configured_size(self) -> tuple[int, int] | None:
        """Optional[tuple[int, int]]: the same as the student's config has it."""
        padded = preprocessor_of(self.student.cfg).get('size')
        if padded:
            return tuple(padded)
        read = self.read_size
        if read is None:
            return None
        divisor = self.padding or pad_size_divisor(self.student.cfg)
        return padded_size((read.height, read.width), divisor)

    @property
    def one_size(self) -> tuple[int, int] | None:
        """Optional[tuple[int, int]]: the size of every batch, by the student's config.

        None where batches have several sizes, or nothing says theirs.
        """
        read = self.read_size
        padded = preprocessor_of(self.student.cfg).get('size')
        known = padded or (read is not None and read.fixed)
        return augmented_size(self.student.cfg, self.configured_size if known else None)

    @property
    def has_squares(self) -> bool:
        """bool: whether every batch is a square, by the student's config."""
        return has_square_batches(self.student.cfg)

    def size_of(self, feature: Feature) -> tuple[int, ...]:
        """Tell how large a level is for the user's own images.

        Args:
            feature (Feature): The level.

        Returns:
            tuple[int, ...]: Its height and width.
        """
        size = self.image_size
        probed = self.student.probe.input_shape[2:]
        if size is None or tuple(size) == tuple(probed) or feature.is_vector:
            return feature.size
        return tuple(-(-n // feature.stride) for n in size)

    @property
    def weight(self) -> LossWeight:
        """LossWeight: the weight of the levels, or a factor of that of the losses."""
        if self.loss_weight is not None:
            return parse_loss_weight(self.loss_weight)
        weight = parse_loss_weight(DEFAULT_LOSS_WEIGHT)
        measured = METHODS[self.method].compares == 'levels'
        return 1.0 if is_balanced(weight) and not measured else weight

    @property
    def warmup_cfg(self) -> dict[str, int | bool] | None:
        """Optional[dict]: the ``warmup`` of the distiller."""
        if self.warmup is None:
            return None
        by_epoch = loops_by_epoch(self.student.cfg)
        return dict(by_epoch=by_epoch, begin=0, end=self.warmup)

    @cached_property
    def training_images(self) -> int:
        """int: number of the student's training images.

        Raises:
            ValueError: If its data set cannot be read.
        """
        cfg = self.student.cfg
        try:
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                return len(DATASETS.build(cfg.train_dataloader.dataset))
        except Exception as error:
            raise ValueError(
                f'--method {self.method} needs the number of training images, and the '
                f'training data of {self.student.name} cannot be read here: '
                f'{type(error).__name__}: {error}'
            ) from error

    @property
    def image_channels(self) -> tuple[int, int]:
        """tuple[int, int]: channels of the images that student and teacher take."""
        return self.student.probe.input_shape[1], self.teacher.probe.input_shape[1]

    @property
    def teacher_channels(self) -> list[int] | None:
        """Optional[list[int]]: channels of the student's images for the teacher.

        None where it takes as many as the student.

        Raises:
            ValueError: If the student's have several channels, but not enough.
        """
        ours, theirs = self.image_channels
        if ours == theirs:
            return None
        found = choose_channels(ours, theirs)
        if found is None:
            raise ValueError(
                f'the teacher {self.teacher.name} takes images of {theirs} channels, '
                f'and those of {self.student.name} have {ours}: it gets the batches of '
                f'the student. Choose a teacher of at most {ours} channels, or load '
                f'images of {theirs} and set `in_channels={theirs}` of the '
                "student's backbone."
            )
        return found

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
