# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Plain student files beside the checkpoints."""

from __future__ import annotations

from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, save_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint
from mmrazor.models.algorithms import BaseAlgorithm

from mmfakd.registry import HOOKS
from mmfakd.utils.export_student import export_student


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Write a plain student file beside every checkpoint that is kept.

    ``epoch_12.pth`` gets ``epoch_12_student.pth``, the best checkpoint likewise:
    weights that stock mmpretrain or mmdet loads with ``strict=True``, with a stock
    config in their meta data. With an averaged model (EMA) they are the averaged
    weights, as in the checkpoint itself. A student file is removed when its
    checkpoint is. In a run without a teacher, whose checkpoints are plain already, it
    does nothing.

    Args:
        suffix (str): What the student's file name adds to the checkpoint's.
            Defaults to ``'_student'``.

    Raises:
        ValueError: If ``suffix`` is empty, as the checkpoint would be overwritten.
    """

    # After CheckpointHook, which has VERY_LOW.
    priority = 'LOWEST'

    def __init__(self, suffix: str = '_student') -> None:
        if not suffix:
            raise ValueError("suffix=''; expected a part of a file name.")
        self.suffix = suffix
        # Path of a checkpoint -> what tells one writing of it from the next.
        self._written: dict[str, Any] = {}
        self._pending: dict | None = None
        self._active = False

    def before_train(self, runner: Runner) -> None:
        """Take over the checkpoints of a resumed run.

        Args:
            runner (Runner): The runner.
        """
        self._written.clear()
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._active = isinstance(model, BaseAlgorithm)
        if not self._active or not is_main_process():
            return
        info = runner.message_hub.runtime_info
        for hook in _checkpoint_hooks(runner):
            last = info.get('last_ckpt')
            steps = [
                hook.file_backend.join_path(hook.out_dir, hook.filename_tmpl.format(i))
                for i in info.get('keep_ckpt_ids', [])
            ]
            known = dict.fromkeys([*steps, last] if last else steps)
            for path, version in {**known, **_best(runner)}.items():
                if not hook.file_backend.isfile(path):
                    continue
                if not hook.file_backend.isfile(self._student_path(path)):
                    checkpoint = _load_checkpoint(path, map_location='cpu')
                    self._write(path, export_student(checkpoint))
                self._written[path] = version

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the student out of the checkpoint that is about to be written.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint, after EMAHook has put the averaged
                weights into it.
        """
        if self._active:
            self._pending = export_student(checkpoint)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Write the student of a checkpoint by iterations.

        Args:
            runner (Runner): The runner.
            *args (Any): The batch, unused.
            **kwargs (Any): The batch, unused.
        """
        self._sync(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the student of a checkpoint by epochs.

        Args:
            runner (Runner): The runner.
        """
        self._sync(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Write the student of the best checkpoint.

        Args:
            runner (Runner): The runner.
            metrics (dict, optional): The scores, unused.
        """
        self._sync(runner)

    def _sync(self, runner: Runner) -> None:
        """Make the student files follow the checkpoints just written and removed.

        Only the main process saves checkpoints, so only it gets past the first line.
        """
        if self._pending is None:
            return
        student, self._pending = self._pending, None
        for hook in _checkpoint_hooks(runner):
            saved = _best(runner)
            if hook.last_ckpt is not None:
                saved[hook.last_ckpt] = runner.iter
            for path, version in saved.items():
                if self._written.get(path) != version:
                    self._write(path, student)
                    self._written[path] = version
            for path in [p for p in self._written if not hook.file_backend.exists(p)]:
                student_path = self._student_path(path)
                if hook.file_backend.isfile(student_path):
                    hook.file_backend.remove(student_path)
                del self._written[path]

    def _student_path(self, path: str) -> str:
        stem, dot, ending = path.rpartition('.')
        return f'{stem}{self.suffix}{dot}{ending}'

    def _write(self, path: str, student: dict) -> None:
        save_checkpoint(student, self._student_path(path))


def _checkpoint_hooks(runner: Runner) -> list[CheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]


def _best(runner: Runner) -> dict[str, float]:
    """Path of every best checkpoint -> its score, which changes with its content."""
    info = runner.message_hub.runtime_info
    scores = {k: v for k, v in info.items() if k.startswith('best_score')}
    paths = {info.get(k.replace('best_score', 'best_ckpt', 1)): v for k, v in scores.items()}
    return {path: float(score) for path, score in paths.items() if path}


__all__ = ['StudentCheckpointHook']
