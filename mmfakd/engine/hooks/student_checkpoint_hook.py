# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Plain student files beside the checkpoints."""

from __future__ import annotations

import logging
import os.path as osp
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner, save_checkpoint
from mmrazor.models.algorithms import BaseAlgorithm

from mmfakd.checkpoints.class_names import trained_classes
from mmfakd.checkpoints.first_meta import first_meta
from mmfakd.checkpoints.latest import LOAD_ERRORS, find_flaw
from mmfakd.checkpoints.student import export_student
from mmfakd.compat import load_checkpoint_file
from mmfakd.compat.best_of_others import is_own
from mmfakd.engine.check_data import teacher_checkpoint
from mmfakd.engine.known_meta import known_meta
from mmfakd.engine.unwrap import unwrapped_model
from mmfakd.models.algorithms.count_classes import predicted_counts
from mmfakd.registry import HOOKS


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Write a plain student file beside every checkpoint that is kept.

    ``epoch_12.pth`` gets ``epoch_12_student.pth``, the best checkpoint likewise:
    weights that stock mmpretrain, mmdet or mmseg loads with ``strict=True``, with a
    stock config in their meta data. With an averaged model (EMA) they are the averaged
    weights, as in the checkpoint itself. Its classes have the names of the training
    set, else of the validation set, else of the teacher's checkpoint. A student file
    is removed when its checkpoint is. In a run without a teacher, whose checkpoints
    are plain already, it does nothing.

    Args:
        suffix (str): What the student's file name adds to the checkpoint's.
            Defaults to ``'_student'``.

    Raises:
        ValueError: If ``suffix`` is empty, as the checkpoint would be overwritten.
    """

    # After CheckpointHook, which has VERY_LOW, and EMAHook.
    priority = 'LOWEST'

    def __init__(self, suffix: str = '_student') -> None:
        if not suffix:
            raise ValueError("suffix=''; expected a part of a file name.")
        self.suffix = suffix
        # Checkpoints with a student file; path of every best one and its score.
        self._paths: set[str] = set()
        self._best: dict[str, float] = {}
        # Students of checkpoints that are being written.
        self._pending: dict[str, tuple[CheckpointHook, dict]] = {}
        self._saved = False
        self._resumed_steps: list[int] = []
        self._outdated: list[str] = []
        self._active = False
        self._borrowed: dict | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note which checkpoints a resumed run has, before any is removed.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint just read.
        """
        if runner._resume:
            info = checkpoint['message_hub']['runtime_info']
            self._resumed_steps = list(info.get('keep_ckpt_ids', []))
            # Their students go with them, if it has not come to that.
            self._outdated = list(info.get('outdated_ckpts', []))

    def before_train(self, runner: Runner) -> None:
        """Take over the checkpoints of a resumed run.

        Args:
            runner (Runner): The runner.
        """
        model = unwrapped_model(runner)
        self._active = isinstance(model, BaseAlgorithm)
        if not self._active or not is_main_process():
            return
        info = runner.message_hub.runtime_info
        self._best = _best(runner)
        noted = {*self._best, *filter(None, [info.get('last_ckpt')])}
        hooks = _checkpoint_hooks(runner)
        # Students of other folders are not this training's to write or remove.
        self._paths = {p for p in noted if any(is_own(p, h) for h in hooks)}
        for hook in hooks:
            backend = hook.file_backend
            steps = map(hook.filename_tmpl.format, self._resumed_steps)
            names = [*steps, *self._outdated]
            self._paths |= {backend.join_path(hook.out_dir, name) for name in names}
            # CheckpointHook may just have removed some, if fewer are to be kept.
            self._remove_orphans(hook)
            for path in self._paths:
                self._restore(hook, path)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the student out of the checkpoint that is about to be written.

        Only the main process saves checkpoints.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint, after EMAHook has put the averaged
                weights into it.
        """
        hooks = _checkpoint_hooks(runner)
        # What an interruption saves within an epoch is no result.
        if not self._active or any(getattr(h, 'interrupted', False) for h in hooks):
            return
        # MMEngine asks the outermost training set alone: PyTorch's wrappers have no
        # names, nor have images without labels.
        own = first_meta(checkpoint['meta'].get('dataset_meta'))
        if not own.get('classes'):
            found = known_meta(runner) or self._teacher_names(runner)
            checkpoint['meta']['dataset_meta'] = {**own, **found}
        known, self._best = self._best, _best(runner)
        improved = [p for p, score in self._best.items() if score != known.get(p)]
        for hook in hooks:
            path = improved[0] if improved else _step_path(hook, runner, checkpoint)
            if path is not None:
                self._pending[path] = hook, export_student(checkpoint, own=True)
                break

    def _teacher_names(self, runner: Runner) -> dict:
        """Call the student's classes as the teacher does, which has as many."""
        if self._borrowed is None:
            model: Any = unwrapped_model(runner)
            checkpoint = teacher_checkpoint(model, runner.cfg.get('model'))
            names = trained_classes(checkpoint)
            fit = names and len(names) in predicted_counts(model.architecture)
            self._borrowed = dict(classes=tuple(names)) if fit else {}
        return self._borrowed

    def after_save_checkpoint(self, runner: Runner) -> None:
        """Write the students of the checkpoints that are there now.

        ``SafeCheckpointHook`` calls it before it removes anything. Behind other hooks
        it is called at the end of the iteration, epoch or validation.

        Args:
            runner (Runner): The runner.
        """
        pending, self._pending = self._pending, {}
        self._saved = self._saved or bool(pending)
        for path, (hook, student) in pending.items():
            self._write(hook, path, student)
            self._paths.add(path)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Write students, and remove those whose checkpoint has gone.

        Args:
            runner (Runner): The runner.
            *args: Unused.
            **kwargs: Unused.
        """
        self.after_save_checkpoint(runner)
        if self._saved:
            self._saved = False
            for hook in _checkpoint_hooks(runner):
                self._remove_orphans(hook)

    after_train_epoch = after_val_epoch = after_train_iter

    def _restore(self, hook: CheckpointHook, path: str) -> None:
        """Write the student of an older checkpoint if it is not that of the file."""
        student = self._student_path(path)
        if hook.file_backend.isfile(student):
            flaw = None if '://' in student else find_flaw(student)
            if flaw is not None:
                _warn(f'{flaw} It is written anew.')
            # Saved again, behind a validation, a checkpoint may be of a later epoch.
            elif '://' in student or _place(path) in (None, _place(student)):
                return
        try:
            with hook.file_backend.get_local_path(path) as local:
                checkpoint = load_checkpoint_file(local)
            self._write(hook, path, export_student(checkpoint, own=True))
        except LOAD_ERRORS as error:
            _warn(f'{path} gets no student file, as it cannot be read: {error}')

    def _remove_orphans(self, hook: CheckpointHook) -> None:
        backend = hook.file_backend
        for path in [path for path in self._paths if not backend.exists(path)]:
            if backend.isfile(self._student_path(path)):
                backend.remove(self._student_path(path))
            self._paths.remove(path)

    def _student_path(self, path: str) -> str:
        stem, ending = osp.splitext(path)
        return f'{stem}{self.suffix}{ending}'

    def _write(self, hook: CheckpointHook, path: str, student: dict) -> None:
        save_checkpoint(
            student,
            self._student_path(path),
            file_client_args=hook.file_client_args,
            backend_args=hook.backend_args,
        )


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _step_path(hook: CheckpointHook, runner: Runner, checkpoint: dict) -> str | None:
    """Path of the checkpoint if this hook saves it, None if another part does."""
    path = hook.last_ckpt
    step = checkpoint['meta']['epoch' if hook.by_epoch else 'iter']
    is_last = path == runner.message_hub.runtime_info.get('last_ckpt')
    is_step = path and osp.basename(path) == hook.filename_tmpl.format(step)
    return path if is_last and is_step else None


def _checkpoint_hooks(runner: Runner) -> list[CheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]


def _best(runner: Runner) -> dict[str, float]:
    """Path of every best checkpoint -> its score, which changes with its content."""
    info = runner.message_hub.runtime_info
    scores = {k: v for k, v in info.items() if k.startswith('best_score')}
    paths = {
        info.get(k.replace('best_score', 'best_ckpt', 1)): v for k, v in scores.items()
    }
    return {path: float(score) for path, score in paths.items() if path}


def _place(path: str) -> tuple[Any, Any] | None:
    """Epoch and iteration of a local file; None if it is none that can be read."""
    try:
        meta = load_checkpoint_file(path, mmap=True)['meta']
        return meta.get('epoch'), meta.get('iter')
    except (KeyError, *LOAD_ERRORS):
        return None
