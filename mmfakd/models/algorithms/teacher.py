# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The frozen model that a student learns from."""

from __future__ import annotations

import copy
import logging
import math
import os.path as osp
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor, nn

from mmfakd.checkpoints.load import load_weights, refuse_missing
from mmfakd.compat.running_loop import iterations_done, running_loop
from mmfakd.models.distillers.any_distiller import clear_records, missing_records
from mmfakd.models.distillers.attach_recorders import attach_recorders
from mmfakd.ops.compiling import is_compiling

from .built_models import build_model, check_ckpt, is_pretrained, pretrained_from
from .check_batches import refuse_channels
from .loaded_weights import (
    keep_loaded,
    loaded_in_constructor,
    names_of,
    watch_loading,
)
from .run_mode import (
    MODES,
    recorded_part,
    run_model,
    shallowest_mode,
    unnamed_recorders,
)
from .teacher_input import TeacherInput


class Teacher(nn.Module):
    """A model in evaluation mode, outside of the module tree.

    It is in no checkpoint, optimizer, averaged model or DDP bucket: this module has
    no parameters, and copies of it share the model. Yet the model follows ``.to()`` and
    the like, as it passes them on; a copy takes a model of its own then, as what is
    done to an averaged model is not meant for the training.

    Args:
        model (dict | BaseModel): A config, ``dict(cfg_path=...)`` or a built model,
            which is taken to hold its weights.
        student (BaseModel): The student, whose preprocessor makes the batches.
        ckpt (str, optional): Its weights: a path, URL or model-zoo name.
        mode (str): How deep it runs: ``'backbone'``, ``'neck'``, ``'tensor'`` or
            ``'loss'``, or ``'auto'`` for the shallowest that feeds every recorder and
            delivery.
        preprocessor (dict, optional): ``mean``, ``std`` and ``to_rgb`` that it was
            trained with, where its config does not say so; ``channels`` of the
            student's batch that it gets.

    Shapes:
        Inputs are batches (N, C, H, W) as the student's preprocessor makes them.

    Raises:
        TypeError: If the model is neither a config nor a ``BaseModel``.
        ValueError: For an unknown mode or an empty name of a checkpoint.
    """

    def __init__(
        self,
        model: dict | BaseModel,
        student: BaseModel,
        ckpt: str | None = None,
        mode: str = 'auto',
        preprocessor: dict | None = None,
    ) -> None:
        super().__init__()
        if mode not in ('auto', *MODES):
            raise ValueError(
                f"teacher_mode={mode!r}; expected 'auto' or one of {MODES}."
            )
        check_ckpt(ckpt, 'teacher_ckpt')
        built, zoo_ckpt = build_model(model, 'teacher')
        built.requires_grad_(False)
        # As an attribute of its own it would join the module tree.
        self._outside = (built,)
        self._shares = False
        self.ckpt = ckpt or zoo_ckpt
        self.has_weights = isinstance(model, BaseModel)
        # Names of the tensors that have been loaded, where it loads any.
        self._loaded: set[str] | None = None
        # What stayed at random within parts whose weights were loaded.
        self.unfilled: list[str] = []
        self.mode = None if mode == 'auto' else mode
        self._left_told = False
        # Whether it is said what it is used to, in place of its config.
        self.told_input = bool(preprocessor)
        if preprocessor is None:
            preprocessor = built.data_preprocessor
        self.input = TeacherInput(
            student.data_preprocessor, preprocessor, built.data_preprocessor
        )
        if not self.input.is_identity:
            print_log(
                f"The teacher gets the student's batch re-normalised: {self.input}",
                logger='current',
            )
        self.train()

    @property
    def model(self) -> BaseModel:
        """BaseModel: the model itself."""
        return self._outside[0]

    @property
    def source(self) -> str | None:
        """Where its weights come from (str), as it is given, or None."""
        if self.ckpt is not None:
            return self.ckpt
        own = pretrained_from(self.model)
        if loaded_in_constructor(self.model):
            own.append(f'what the constructor of {type(self.model).__name__} loads')
        return ', '.join(own) or None

    @property
    def has_source(self) -> bool:
        """bool: Whether it has weights, or is told where to find some."""
        return self.has_weights or self.source is not None

    @property
    def path(self) -> str | None:
        """Absolute path (str) of its checkpoint if that is a local file, or None."""
        path = osp.abspath(osp.expanduser(self.ckpt or ''))
        return path if osp.isfile(path) else None

    def __deepcopy__(self, memo: dict) -> Teacher:
        twin = copy.copy(self)
        twin._modules = copy.deepcopy(self._modules, memo)
        twin._shares = True
        return twin

    def _apply(self, *args: Any, **kwargs: Any) -> Teacher:
        super()._apply(*args, **kwargs)
        if self._shares:
            self._outside = (copy.deepcopy(self.model),)
            self._shares = False
        self.model._apply(*args, **kwargs)
        return self

    def train(self, mode: bool = True) -> Teacher:
        """Keep the model in evaluation mode.

        Args:
            mode (bool): Training mode of the models around it.

        Returns:
            Teacher: The teacher itself.
        """
        super().train(mode)
        self.model.eval()
        return self

    def needed_weights(self, distiller: ConfigurableDistiller) -> list[str]:
        """Find which of its weights the recorded features depend on.

        Args:
            distiller (ConfigurableDistiller): The distiller that records.

        Returns:
            list[str]: Prefixes of their keys, ``''`` for all.
        """
        recorders = distiller.teacher_recorders
        return _needed(self.mode or recorded_part(self.model, recorders))

    def fill(self, needed: Sequence[str] = ('',)) -> None:
        """Load its weights, or warn that it has none.

        Args:
            needed (Sequence[str]): Prefixes of the keys that must be there.

        Raises:
            FileNotFoundError: If the checkpoint is neither a file nor a known name.
            ValueError: If the checkpoint does not fit.
        """
        if self.ckpt is not None:
            option = '--teacher-ckpt'
            keys = load_weights(self.model, self.ckpt, 'teacher', needed, option)
            self._loaded = set(keys)
            self.has_weights = True
        if self.has_weights:
            return
        with keep_loaded(self.model), watch_loading() as loaded:
            self.model.init_weights()
        names = {*names_of(loaded, self.model), *loaded_in_constructor(self.model)}
        self._loaded = names
        self._judge_loaded(names, needed)

    def _judge_loaded(self, names: Collection[str], needed: Sequence[str]) -> None:
        """Tell whether what its own config loads are weights for what is recorded."""
        filled = self._filled_parts(names)
        lacking = self._lacking(names, needed)
        self.has_weights = bool(names) and all(
            any(not part or name.startswith(f'{part}.') for part in filled)
            for name in lacking
        )
        if self.has_weights:
            self._tell_unfilled(lacking)
        else:
            parts = filled or sorted({name.partition('.')[0] for name in names})
            having = f'only {parts} has' if parts else 'nothing in it has'
            print_log(
                f'{"!" * 20} THE TEACHER HAS NO WEIGHTS {"!" * 20} '
                f'({having} pretrained weights): the student learns to imitate random '
                'features. Give `teacher_ckpt` (`mmfakd train --teacher-ckpt`).',
                logger='current',
                level=logging.WARNING,
            )

    def _lacking(
        self, names: Collection[str], needed: Sequence[str]
    ) -> dict[str, Tensor]:
        """Parameters that are needed and not among those of these names."""
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if name.startswith(tuple(needed)) and name not in names
        }

    def _judge_deeper(
        self, distiller: ConfigurableDistiller, recorders: set[str], *run: Any
    ) -> None:
        """Check the weights of what is recorded deeper than its name could say.

        Raises:
            RuntimeError: If training is resumed, and they are missing.
            ValueError: If the checkpoint lacks some.
        """
        if self._loaded is None or not self.has_weights or is_compiling():
            return
        entered = self._entered_before_records(distiller, recorders, *run)
        lacking = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if name.rpartition('.')[0] in entered and name not in self._loaded
        }
        keys = [name for name, parameter in lacking.items() if _varies(parameter)]
        if keys and self.ckpt is not None:
            refuse_missing(keys, self.model, self.ckpt, 'teacher')
        if keys:
            self._judge_loaded(self._loaded, keys)
            self.refuse_resume_without_weights()

    def _entered_before_records(
        self, distiller: ConfigurableDistiller, recorders: set[str], *run: Any
    ) -> set[str]:
        """Run it once more; name the modules that begin while recorders lack data."""
        entered: set[str] = set()

        def note(name: str, *_: Any) -> None:
            if recorders.intersection(missing_records(distiller)):
                entered.add(name)

        handles = [
            part.register_forward_pre_hook(partial(note, name))
            for name, part in self.model.named_modules()
        ]
        clear_records(distiller)
        try:
            self._run(run[0], distiller, *run[1:])
        finally:
            for handle in handles:
                handle.remove()
        return entered

    def _tell_unfilled(self, lacking: Mapping[str, Tensor]) -> None:
        """Warn of weights at random that a checkpoint of `init_cfg` has nothing for.

        Norms that a detector adds to its backbone have their first values, which are
        all alike, and teach nothing wrong.
        """
        self.unfilled = [name for name, p in lacking.items() if _varies(p)]
        if self.unfilled:
            print_log(
                f'{"!" * 20} {self.partly_at_random} {"!" * 20}',
                logger='current',
                level=logging.WARNING,
            )

    @property
    def partly_at_random(self) -> str:
        """str: What to say of ``unfilled``."""
        count = len(self.unfilled)
        more = f' and {count - 3} more' if count > 3 else ''
        return (
            f'THE TEACHER IS PARTLY AT RANDOM: {self.source} has nothing that fits '
            f'{count} of its tensors, {", ".join(self.unfilled[:3])}{more}. What is '
            'recorded there, or behind, is noise. Give a checkpoint of the whole '
            'teacher as `teacher_ckpt` (`--teacher-ckpt`), and a head of as many '
            'classes.'
        )

    def _filled_parts(self, names: Collection[str]) -> list[str]:
        """Parts whose ``init_cfg`` names a checkpoint and that have been filled."""
        return [
            part
            for part, module in self.model.named_modules()
            if is_pretrained(module)
            and any(not part or name.startswith(f'{part}.') for name in names)
        ]

    def recall(self, source: str, path: str | None = None) -> None:
        """Take the weights that an earlier run had.

        Args:
            source (str): What that was given.
            path (str, optional): Absolute path of the file, if it was one.

        Raises:
            FileNotFoundError: If the file is gone.
        """
        if path is not None and osp.isfile(path):
            # As it was given, where that still is the same file.
            same = osp.abspath(osp.expanduser(source)) == path
            self.ckpt = source if same else path
        elif path is None or osp.isfile(osp.expanduser(source)):
            self.ckpt = source
        else:
            raise FileNotFoundError(
                f'The teacher that training began with is gone: {source} ({path}). Put '
                'it back, or give its new place as `teacher_ckpt` (`mmfakd train '
                '--teacher-ckpt`).'
            )

    def refuse_resume_without_weights(self) -> None:
        """Check that a training that goes on has the teacher it began with.

        Raises:
            RuntimeError: If training is resumed, and the teacher has no weights.
        """
        iteration = iterations_done()
        # Or it has begun to distil late.
        runner = getattr(running_loop(), 'runner', None)
        resumed = iteration > 0 and getattr(runner, '_resume', True)
        if resumed and not self.has_weights:
            raise RuntimeError(
                f'Training is resumed at iteration {iteration}, but the teacher has no '
                'weights: checkpoints hold no teacher, and a random one is not the one '
                'that training began with. Give `teacher_ckpt` (`mmfakd train '
                '--teacher-ckpt`).'
            )

    def record(
        self,
        distiller: ConfigurableDistiller,
        inputs: Tensor,
        data_samples: list | None,
    ) -> None:
        """Run the model as deep as needed, recorders on.

        Args:
            distiller (ConfigurableDistiller): The distiller that records.
            inputs (Tensor): The student's batch, (N, C, H, W).
            data_samples (list, optional): Its N data samples.

        Raises:
            RuntimeError: If no mode feeds all recorders, the model cannot take a batch
                of the student's size, or it changes the batch.
            TypeError: If the student takes several batches.
            ValueError: If its checkpoint lacks weights of what is recorded.
        """
        if isinstance(inputs, Mapping):
            raise TypeError(
                f'The student takes a dict of batches ({sorted(inputs)}), as '
                'semi-supervised detectors do; a teacher needs one batch of images. '
                'Distil the detector within it, as `architecture`.'
            )
        if self.model.training:
            self._leave_training()
        attach_recorders(distiller.teacher_recorders.recorders, self.model, 'teacher')
        batch = (self.input(inputs, data_samples), data_samples)
        tracked = isinstance(inputs, Tensor) and not inputs.is_inference()
        # Versions are none of a graph's.
        tracked = tracked and not is_compiling()
        before = inputs._version if tracked else 0
        if self.mode is None:
            self._find_mode(distiller, *batch)
        else:
            self._run(self.mode, distiller, *batch)
        if tracked and inputs._version != before:
            raise RuntimeError(
                f'The teacher ({type(self.model).__name__}) changes the batch itself, '
                'and the student would train on what is left of it. Set inplace=False '
                'where the teacher prepares its input, or let it copy the batch.'
            )

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        """Predict on a batch, as the model sees it in the distillation.

        Args:
            inputs (Tensor): The student's batch, (N, C, H, W).
            data_samples (list, optional): Its N data samples.

        Returns:
            Any: The predictions, in general a list of data samples.
        """
        inputs = self.input(inputs, data_samples)
        return self.model(inputs, data_samples, mode='predict')

    def _leave_training(self) -> None:
        """Put the model back into evaluation mode, and say once that it had left it."""
        self.model.eval()
        if not self._left_told:
            self._left_told = True
            print_log(
                'The teacher was put into training mode, by a hook or a loop: moving '
                'statistics, dropout and drop path would change what it teaches. It '
                'is back in evaluation mode; take `teacher.train()` out.',
                logger='current',
                level=logging.WARNING,
            )

    def _find_mode(self, distiller: ConfigurableDistiller, *batch: Any) -> None:
        """Run it in the shallowest mode that feeds all recorders, and keep that."""
        tried: list[str] = []
        unnamed = unnamed_recorders(self.model, distiller.teacher_recorders)
        # Those of them that a shallower mode does not feed.
        deeper: set[str] = set()
        start = MODES.index(shallowest_mode(self.model, distiller.teacher_recorders))
        for mode in MODES[start:]:
            clear_records(distiller)
            try:
                self._run(mode, distiller, *batch)
            except (AttributeError, NotImplementedError, TypeError) as error:
                # A model without `backbone`, or without a 'tensor' mode.
                tried.append(f'{mode}: {type(error).__name__}: {error}')
                deeper = unnamed
                continue
            missing = missing_records(distiller)
            if not missing:
                if deeper:
                    self._judge_deeper(distiller, deeper, mode, *batch)
                self.mode = mode
                print_log(f'The teacher runs in mode {mode!r}.', logger='current')
                return
            tried.append(f'{mode}: no record for {missing}')
            deeper = unnamed.intersection(missing)
        raise RuntimeError(
            "teacher_mode='auto': no mode of the teacher feeds every recorder and "
            f'delivery ({"; ".join(tried)}). Record layers that its forward pass '
            'reaches, with a `record_idx` below the number of their calls.'
        )

    @torch.no_grad()
    def _run(self, mode: str, distiller: ConfigurableDistiller, *batch: Any) -> None:
        inputs: Tensor = batch[0]
        with distiller.teacher_recorders, distiller.deliveries:
            try:
                run_model(self.model, mode, *batch)
            except (NotImplementedError, torch.cuda.OutOfMemoryError):
                raise
            except RuntimeError as error:
                refuse_channels(error, 'teacher', inputs)
                # Its own preprocessor may pad further than the student's. Then its
                # features would not cover the student's, so it gets the batch as it is.
                size = ' x '.join(map(str, inputs.shape[-2:]))
                divisor = getattr(self.model.data_preprocessor, 'pad_size_divisor', 1)
                if 'BaseDetector' in {c.__name__ for c in type(self.model).__mro__}:
                    # Their necks join maps of strides up to 32, padded or not.
                    divisor = math.lcm(32, divisor)
                if not any(n % divisor for n in inputs.shape[-2:]):
                    raise
                raise RuntimeError(
                    f'The teacher failed on a batch of {size} pixels ({error}). It is '
                    f'used to multiples of {divisor}: set `pad_size_divisor={divisor}` '
                    "in the student's `data_preprocessor`."
                ) from error


def _needed(mode: str) -> list[str]:
    """Prefixes of the weights that a mode runs, ``''`` for all."""
    parts = {'backbone': ['backbone.'], 'neck': ['backbone.', 'neck.']}
    return parts.get(mode, [''])


def _varies(weight: Tensor) -> bool:
    """Whether the entries of a weight differ, as those drawn at random do."""
    values = weight.detach().flatten()
    return not values.is_meta and bool((values != values[:1]).any())
