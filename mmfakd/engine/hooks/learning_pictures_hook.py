# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Show what a distillation learns while it does."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmfakd.datasets.random_state import same_random_state
from mmfakd.engine.unwrap import unwrapped_model
from mmfakd.models.algorithms import FeatureDistill
from mmfakd.pictures.level_maps import FixedImages, LevelMaps
from mmfakd.registry import HOOKS

PREFIX = 'learning'


@HOOKS.register_module()
class LearningPicturesHook(Hook):
    """Give the visualizer what the levels of a distillation look like, at an interval.

    Each look takes, for every distillation loss, from the training step itself its
    weighted value, its share of all losses and the ratio of its gradient on the
    student to that of the student's own loss (``learning/loss_level0/ratio``), as the
    report of the first step does. From a few fixed images, in evaluation mode, it takes
    by band of frequencies (low, middle, high) the amplitudes of the student's feature,
    of what is predicted of it and of the teacher's, the gap between these two, and the
    magnitude of the filter (``learning/loss_level0/gap_high``). With ``images`` it
    draws filters, spectra and gaps, and where on two images the features are large.

    The numbers go to whatever backends the visualizer has: local files, TensorBoard,
    W&B. ``mmfakd plot WORK_DIR`` draws them.

    Training is the same with and without it, to the last bit. Between the looks it
    waits for no device. In several processes all of them measure gradients, and the
    first one alone looks at the images and writes.

    Args:
        interval (int): Iterations between two looks; the first and the last iteration
            of a training have one, too. Defaults to 500.
        images (bool): Whether to draw as well, which takes a second or two each time.
            Defaults to False.
        samples (int): How many images are fixed, at equal distances in their data set.
            Defaults to 4.
        split (str): Whose images: ``'val'``, where there is a validation set, or
            ``'train'``. Defaults to ``'val'``.

    Raises:
        TypeError: Before training, if the model is no ``FeatureDistill``, or the data
            set has no length.
        ValueError: For numbers that are not positive or another split; at the first
            look if a level cannot take the images.
    """

    # After all that changes the model, before checkpoints.
    priority = 'LOW'

    def __init__(
        self,
        interval: int = 500,
        images: bool = False,
        samples: int = 4,
        split: str = 'val',
    ) -> None:
        for name, value in (('interval', interval), ('samples', samples)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name}={value!r}; expected a positive number.')
        if split not in ('val', 'train'):
            raise ValueError(f"split={split!r}; expected 'val' or 'train'.")
        self.interval, self.images = interval, images
        self.samples, self.split = samples, split
        self._fixed: FixedImages | None = None
        self._told = False

    def before_train(self, runner: Runner) -> None:
        """Take the images out of their data set.

        Args:
            runner (Runner): The runner.

        Raises:
            TypeError: If the model is no ``FeatureDistill``, or the set has no length.
        """
        model = self._model(runner)
        if is_main_process():
            self._fixed = FixedImages(model, self._take(runner))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Ask for the gradients of this step, if there is a look after it.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (Any, optional): The batch, unused.
        """
        if self._is_due(runner):
            self._model(runner).measure_next_step()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Look, and give what is seen to the visualizer.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (Any, optional): The batch, unused.
            outputs (dict, optional): Name -> logged value, unused.

        Raises:
            ValueError: If a level cannot take the images.
        """
        if self._fixed is not None and self._is_due(runner):
            self._show(runner, self._fixed)

    def _model(self, runner: Runner) -> FeatureDistill:
        model = unwrapped_model(runner)
        if not isinstance(model, FeatureDistill):
            raise TypeError(
                f'LearningPicturesHook: the model is a {type(model).__name__}, '
                'expected a mmfakd.FeatureDistill. Take the hook out of the config, or '
                'distil with that.'
            )
        return model

    def _is_due(self, runner: Runner) -> bool:
        return (
            runner.iter == 0
            or self.every_n_train_iters(runner, self.interval)
            or self.is_last_train_iter(runner)
        )

    def _take(self, runner: Runner) -> dict:
        """A batch of images at equal distances, collated as in their loader."""
        loops = [runner.val_loop, runner.train_loop]
        loader = next(
            loop.dataloader
            for loop in loops[self.split == 'train' :]
            if getattr(loop, 'dataloader', None) is not None
        )
        dataset: Any = loader.dataset
        try:
            places = np.linspace(0, len(dataset) - 1, min(self.samples, len(dataset)))
        except TypeError as error:
            raise TypeError(
                f'LearningPicturesHook: the {self.split} set, a '
                f'{type(dataset).__name__}, has no length, so that no images can be '
                "fixed. Choose the other one by split='train' or split='val'."
            ) from error
        with same_random_state():
            return loader.collate_fn([dataset[int(i)] for i in places.round()])

    def _show(self, runner: Runner, fixed: FixedImages) -> None:
        step = runner.iter + 1
        numbers = self._gradients(fixed.model)
        try:
            inputs, levels = fixed.look()
        except ValueError as error:
            raise ValueError(
                f'LearningPicturesHook: its images, of the {self.split} set, do not go '
                f"through the levels: {error} Images of another size need split='train'"
                '; without the hook training goes on as it is.'
            ) from error
        for level in levels:
            for key, value in level.scalars().items():
                if math.isfinite(value):
                    numbers[f'{PREFIX}/{level.name}/{key}'] = value
        runner.visualizer.add_scalars(numbers, step=step)
        if self.images:
            self._draw(runner, inputs, [level for level in levels if level.is_map])

    def _gradients(self, model: FeatureDistill) -> dict[str, float]:
        measured = model.measured
        why = 'the step is compiled, or distils nothing any more'
        if measured is not None:
            why = measured.unmeasured
        if why and not self._told:
            self._told = True
            print_log(
                f'LearningPicturesHook: no gradients are measured: {why}.',
                logger='current',
                level=logging.WARNING,
            )
        return {} if measured is None else measured.scalars(PREFIX)

    def _draw(self, runner: Runner, inputs: Any, levels: list[LevelMaps]) -> None:
        # It takes a while to import.
        from mmfakd.pictures import figures

        filters = [level for level in levels if level.filter is not None]
        comparable = [level for level in levels if level.comparable]
        drawn: dict[str, Any] = {}
        if filters:
            drawn['filters'] = figures.draw_filters(filters)
        if levels:
            drawn['spectra'] = figures.draw_spectra(levels)
            drawn['attention'] = figures.draw_attention(inputs, levels)
        if comparable:
            drawn['gaps'] = figures.draw_gaps(comparable)
        for name, figure in drawn.items():
            # No slash: local files have this name.
            image = figures.as_image(figure)
            runner.visualizer.add_image(f'{PREFIX}_{name}', image, step=runner.iter + 1)
