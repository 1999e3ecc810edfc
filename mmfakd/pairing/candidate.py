# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One of the two models of a pair, as far as a config needs to know it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import PurePath

from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope

from mmfakd.messages import progress
from mmfakd.model_zoo.build import build_without_weights
from mmfakd.model_zoo.find import config_file, find_config
from mmfakd.model_zoo.read_config import read_config
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.model_zoo.student_of import is_distillation, student_of

from .check_trainable import check_trainable
from .features import Feature
from .input_size import read_input_size
from .levels import Levels, choose_classifier_levels, choose_detector_levels
from .probe import (
    Probe,
    is_classifier,
    is_detector,
    is_segmentor,
    probe_features,
)
from .segmentor_levels import choose_segmentor_levels

_KINDS = dict(classifier=is_classifier, detector=is_detector, segmentor=is_segmentor)


class Candidate:
    """A model to be student or teacher.

    Its config is read at once. It is built when its model is first asked for, and that
    one is run as often as its levels are wanted for another size of images.

    Args:
        name (str): As for :func:`~mmfakd.model_zoo.find.find_config`.
        role (str): ``'student'`` or ``'teacher'``. Defaults to ``'model'``.

    Attributes:
        config (str): What :func:`~mmfakd.model_zoo.find.find_config` made of the name.
        cfg (Config): The config itself; of a distillation its ``model`` is the student,
            which teaches in its turn.
        distillation (str): The distillation of which it is the student, or nothing.
        probe (Probe): What its layers yielded when it was last run.
        levels (Levels): Its levels.
        trained (set[tuple], optional): Keys of the features that a training step
            reaches. None where no step was tried.
        failed (str): Why that step was none of the whole model, if so.
        unreached (list[str]): Levels that would have been chosen, had a training step
            reached them.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ValueError: If it cannot be read or has no model, or is a distillation and to be
            a student.
    """

    probe: Probe
    levels: Levels

    def __init__(self, name: str, role: str = 'model') -> None:
        progress(f'Reading the config of the {role} {name}')
        self.name, self.role = name, role
        self.config = find_config(name)
        self.trained: set[tuple] | None = None
        self.failed = ''
        self.unreached: list[str] = []
        try:
            self.cfg = read_config(config_file(self.config))
        except (ImportError, ValueError) as error:
            raise ValueError(f'{name!r}: {error}') from error
        if 'model' not in self.cfg:
            raise ValueError(f'{name!r}: the config {self.config} has no `model`.')
        self.distillation = ''
        self._model_cfg = self._take_student()

    @property
    def _scope(self) -> str | None:
        # Parts of a package's configs, such as its `_base_/models`, name no scope.
        package = self.config.rpartition('::')[0] or None
        return self.cfg.get('default_scope', package)

    def _take_student(self) -> ConfigDict:
        """The model to build: of a distillation what it has trained."""
        model, _ = resolve_model_cfg(self.cfg.model, self.cfg.get('data_preprocessor'))
        with DefaultScope.overwrite_default_scope(self._scope):
            if not is_distillation(model):
                return model
            self.distillation = getattr(model.type, '__name__', model.type)
            if self.role == 'student':
                raise ValueError(
                    f'{self.name!r} is a distillation ({self.distillation}), not a '
                    'single model. Give the config of its student, from which its '
                    '`architecture` comes. As a teacher a distillation is taken: its '
                    'student teaches.'
                )
            self.cfg.model = student_of(model, repr(self.name))
        return self.cfg.model

    @cached_property
    def model(self) -> BaseModel:
        """BaseModel: the model without weights, in evaluation mode.

        Raises:
            ValueError: If it cannot be built, or is no classifier, detector or
                segmentor.
        """
        progress(f'Building the {self.role} {self.name}')
        try:
            model = build_without_weights(self._model_cfg, self._scope, True)
        except ValueError as error:
            raise ValueError(f'{self.name!r}: {error}') from error
        if not any(is_one(model) for is_one in _KINDS.values()):
            raise ValueError(
                f'{self.name!r}: a {type(model).__name__} is no mmpretrain classifier, '
                'mmdet detector or mmseg segmentor. Give a config of one of these: of '
                'a self-supervised model that of its fine-tuning, of a retriever an '
                '`ImageClassifier` with its backbone, neck and head.'
            )
        return model

    @property
    def kind(self) -> str:
        """str: ``'classifier'``, ``'detector'`` or ``'segmentor'``."""
        return next(kind for kind, is_one in _KINDS.items() if is_one(self.model))

    @property
    def parameters(self) -> int:
        """int: number of its parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def title(self) -> str:
        """str: the config's name without folder and ending."""
        return PurePath(self.config.partition('::')[2] or self.config).stem

    def learns(self, feature: Feature) -> bool:
        """Tell whether gradients flow back from a feature, as far as was tried.

        Args:
            feature (Feature): A feature of it.

        Returns:
            bool: Whether they do.
        """
        return self.trained is None or feature.key in self.trained

    def run(self, size: tuple[int, int], heads: bool = True) -> Probe:
        """Find out what its layers yield for images of a size.

        Args:
            size (tuple[int, int]): Height and width of the images.
            heads (bool): Whether to run the heads, too; without them on one image,
                which takes half the time.

        Returns:
            Probe: What its layers yield.

        Raises:
            ValueError: If it cannot be built or run.
        """
        model = self.model
        progress(f'Running {self.name} on images of {size[0]}x{size[1]}')
        try:
            return probe_features(model, size, heads, batch_size=2 if heads else 1)
        except ValueError as error:
            raise ValueError(f'{self.name!r}: {error}{self._advice(size)}') from error

    def _advice(self, size: tuple[int, int]) -> str:
        """What to do where it fails on images of a size."""
        if self.role != 'teacher':
            return ' Another size: --input-size HxW.'
        read = read_input_size(self.cfg)
        if read is None or not read.fixed or (read.height, read.width) == size:
            return ''
        return (
            ' The teacher gets the batches of the student; its own config trains it on '
            f'{read.height}x{read.width}. Choose a teacher for {size[0]}x{size[1]}, or '
            'train the student on the larger images, too.'
        )

    def examine(self, size: tuple[int, int]) -> None:
        """Run it, and find its levels; of a student those that training reaches.

        Args:
            size (tuple[int, int]): Height and width of the images.

        Raises:
            ValueError: If it cannot be built, run or, a classifier or segmentor to be
                a student, trained.
        """
        self.probe = self.run(size, heads=self.kind != 'detector')
        choose: Callable[..., Levels] = dict(
            classifier=choose_classifier_levels,
            detector=choose_detector_levels,
            segmentor=choose_segmentor_levels,
        )[self.kind]
        self.levels = choose(self.probe)
        if self.role == 'student':
            progress(f'Taking a training step of {self.name}')
            try:
                found = check_trainable(self.model, self.probe, self.cfg)
            except ValueError as error:
                raise ValueError(f'{self.name!r}: {error}') from error
            self.trained, self.failed = found
            self.unreached = [f.name for f in self.levels.all if not self.learns(f)]
            self.levels = choose(self.probe, self.trained)
