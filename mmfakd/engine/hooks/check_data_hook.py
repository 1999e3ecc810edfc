# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Refuse data that nothing can be learned from, before the first step."""

from __future__ import annotations

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmfakd.datasets.wrappers import walk_loaders
from mmfakd.engine.check_data import check_data, check_validation, tell_names
from mmfakd.engine.check_pipelines import check_switches, tell_pad
from mmfakd.engine.check_stream import check_stream
from mmfakd.engine.known_meta import known_meta
from mmfakd.engine.naming_collate import NamingCollate
from mmfakd.engine.unwrap import unwrapped_model
from mmfakd.models.algorithms.check_batches import check_batches
from mmfakd.models.algorithms.check_mean_teacher import check_mean_teacher
from mmfakd.registry import HOOKS


@HOOKS.register_module()
class CheckDataHook(Hook):
    """Check the training data when training begins.

    There must be batches and, where it validates, images for that; the last of an epoch
    must have two images where the distiller needs them, the data set may not have more
    classes than the model predicts, and a detection data set must know the categories
    of its file. A warning tells of images that come in the same order in every epoch,
    of data sets, joined ones or those of training and validation, that call a label by
    different names and, if a loss compares predictions, of a teacher whose checkpoint
    has other names for the classes. A hook that would overwrite the teacher, mmdet's
    ``MeanTeacherHook``, is refused, and so is one that would later switch to a pipeline
    that fails, as mmdet's ``YOLOXModeSwitchHook`` and ``PipelineSwitchHook`` do on
    images without labels. Of a pipeline with a ``Pad`` beside ``ignore_padding`` a
    warning tells. From then on the model itself looks at the labels of every batch, and
    images that do not fit into one batch are named. Streams that do not say how many
    batches they have are refused where MMEngine's ``LoggerHook`` asks for that.

    Raises:
        ValueError: At the beginning of the training if one of this is not so; later
            for a label out of range and images of different sizes.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check data set and loader.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If there is no batch, one of too few images, nothing to
                validate on, classes do not fit, or a hook would overwrite the teacher
                or end the training.
        """
        whole = unwrapped_model(runner)
        labelled = getattr(whole, 'calculate_student_loss', True)
        distiller = getattr(whole, 'distiller', None)
        if distiller is not None and hasattr(whole, 'teacher'):
            # That hook acts before the first step, where the model looks for it.
            check_mean_teacher(runner.hooks)
        # Of several loaders MMEngine asks for their number.
        check_stream(
            runner.train_dataloader, runner.hooks, log_processor=runner.log_processor
        )
        for loader in walk_loaders(runner.train_dataloader):
            for text in check_data(loader, whole, runner.max_iters):
                _warn(text)
            check_switches(runner.hooks, loader.dataset, labelled, runner.max_epochs)
            if getattr(distiller, 'ignore_padding', False):
                _warn(tell_pad(runner.hooks, loader.dataset))
            if hasattr(loader, 'collate_fn'):
                loader.collate_fn = NamingCollate(loader.collate_fn)
        architecture = getattr(whole, 'architecture', whole)
        classes = known_meta(runner).get('classes')
        # Labels that nobody learns, or by which images are looked up among others (as
        # mmpretrain's retrievers do), may be of other classes.
        compared = labelled and not hasattr(architecture, 'prototype')
        # A loop of one's own may have several, or none.
        for loader in walk_loaders(getattr(runner.val_loop, 'dataloader', None)):
            for text in check_validation(loader, classes if compared else None):
                _warn(text)
        check_batches(architecture)
        _warn(tell_names(whole, classes, runner.cfg.get('model')))


def _warn(text: str) -> None:
    if text:
        print_log(text, logger='current', level=logging.WARNING)
