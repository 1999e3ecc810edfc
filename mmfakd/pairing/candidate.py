# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One of the two models of a pair, as far as a config needs to know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath

from mmengine.config import Config
from mmengine.model import BaseModel

from mmfakd.model_zoo.find import find_config, find_weights
from mmfakd.model_zoo.resolve import package_config, resolve_model_cfg

from .check_trainable import check_trainable
from .levels import Levels, choose_classifier_levels, choose_detector_levels
from .probe import (
    Probe,
    build_without_weights,
    is_classifier,
    is_detector,
    probe_features,
)


@dataclass
class Candidate:
    """A model to be student or teacher.

    Args:
        name (str): What the user called it.
        config (str): What :func:`~mmfakd.model_zoo.find.find_config` made of it.
        cfg (Config): The config itself.
        kind (str): ``'classifier'`` or ``'detector'``.
        parameters (int): Number of its parameters.
        probe (Probe): What its layers yield.
        levels (Levels): Its levels.
        trained (set[tuple], optional): Keys of the features that a training step
            reaches. None where no step was tried.
        unreached (list[str]): Levels that would have been chosen, had a training step
            reached them.
    """

    name: str
    config: str
    cfg: Config
    kind: str
    parameters: int
    probe: Probe
    levels: Levels
    trained: set[tuple] | None = None
    unreached: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """str: the config's name without folder and ending."""
        return PurePath(self.config.partition('::')[2] or self.config).stem

    @property
    def weights(self) -> str | None:
        """The model-zoo name of its published weights, if there are any."""
        return find_weights(self.config, self.name)


def load_config(name: str) -> tuple[str, Config]:
    """Find and read a config.

    Args:
        name (str): As for :func:`~mmfakd.model_zoo.find.find_config`.

    Returns:
        tuple[str, Config]: Its path or package path, and the config.

    Raises:
        FileNotFoundError: If there is none; near names are listed.
        ValueError: If it has no model.
    """
    config = find_config(name)
    try:
        cfg = package_config(config) if '::' in config else Config.fromfile(config)
    except Exception as error:
        raise ValueError(
            f'{name!r}: the config {config} cannot be read: {type(error).__name__}: '
            f'{error}'
        ) from error
    if 'model' not in cfg:
        raise ValueError(f'{name!r}: the config {config} has no `model`.')
    return config, cfg


def build_model(name: str) -> tuple[BaseModel, Config]:
    """Build the model of a config without weights.

    Args:
        name (str): As for :func:`~mmfakd.model_zoo.find.find_config`.

    Returns:
        tuple[BaseModel, Config]: The model in evaluation mode, and its config.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ValueError: If it cannot be built, or is neither a classifier nor a detector.
    """
    config, cfg = load_config(name)
    model_cfg, _ = resolve_model_cfg({'cfg_path': config})
    try:
        model = build_without_weights(model_cfg, cfg.get('default_scope'))
    except ValueError as error:
        raise ValueError(f'{name!r}: {error}') from error
    if not (is_classifier(model) or is_detector(model)):
        raise ValueError(
            f'{name!r}: a {type(model).__name__} is neither an mmpretrain classifier '
            'nor an mmdet detector. Give a config of one of these; of a '
            'self-supervised model, for example, the config of its fine-tuning.'
        )
    return model, cfg


def examine(name: str, input_size: tuple[int, int], student: bool) -> Candidate:
    """Build a model and find out what its layers yield.

    Args:
        name (str): As for :func:`~mmfakd.model_zoo.find.find_config`.
        input_size (tuple[int, int]): Height and width of the images.
        student (bool): Whether to try a training step, too, of a classifier.

    Returns:
        Candidate: What was found.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ValueError: If it cannot be built, run or trained, or is neither a classifier
            nor a detector.
    """
    model, cfg = build_model(name)
    trained, unreached = None, []
    try:
        if is_classifier(model):
            kind = 'classifier'
            probe = probe_features(model, input_size)
            levels = choose_classifier_levels(probe)
            if student:
                trained = check_trainable(model, probe)
                unreached = [f.name for f in levels.all if f.key not in trained]
                levels = choose_classifier_levels(probe, trained)
        else:
            kind = 'detector'
            probe = probe_features(model, input_size, heads=False)
            levels = choose_detector_levels(probe)
    except ValueError as error:
        raise ValueError(f'{name!r}: {error}') from error
    parameters = sum(p.numel() for p in model.parameters())
    config = find_config(name)
    return Candidate(
        name, config, cfg, kind, parameters, probe, levels, trained, unreached
    )


__all__ = ['Candidate', 'build_model', 'examine', 'load_config']
