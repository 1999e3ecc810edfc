# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoints that are complete before what they replace goes."""

from __future__ import annotations

import math
import os.path as osp
import re
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from typing import Any

import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from mmfakd.checkpoints.atomic import PART
from mmfakd.checkpoints.latest import ENDINGS
from mmfakd.compat import load_checkpoint_file
from mmfakd.engine.atomic_backend import AtomicBackend
from mmfakd.engine.best_scores import (
    BEST_OF,
    hand_on_scores,
    in_name,
    noted_metrics,
)
from mmfakd.engine.file_names import name_pattern
from mmfakd.engine.position import collect_position, random_states
from mmfakd.engine.trained_weights import TrainedWeights
from mmfakd.messages import near_names, quoted
from mmfakd.registry import HOOKS

from .check_finite_hook import CheckFiniteHook

# What is written where training is interrupted within an epoch.
INTERRUPTED = 'interrupted.pth'
# What a killed run leaves. Others have files that are called so, too; the parts of a
# command that writes beside a training have other names.
_PARTS = tuple(f'{ending}{PART}' for ending in (*ENDINGS, 'last_checkpoint'))


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, for trainings that may be killed at any moment.

    - A file is written under a temporary name, flushed to the disk and renamed:
      the checkpoint, then ``last_checkpoint``, then the student file.
    - Only then are the checkpoints removed that are no longer kept, and the best one
      before. MMEngine removes them first.
    - A checkpoint holds under ``position`` what an exact resume takes, see
      :func:`~mmfakd.engine.position.collect_position`; ``ResumeHook`` restores it.
    - A best score is that of its metric: a resumed run whose ``save_best`` names
      another one does not compare with it.
    - What a killed run left behind is removed at the next start, and paths of a
      folder that was moved are mended.
    - Files that are asked for and would never come are told when training begins.

    Arguments are those of ``CheckpointHook``. With ``backend_args``, or a folder that
    is not local, files are written by the backend that they name.
    """

    # MMEngine's class does not say what they are.
    backend_args: dict | None
    best_ckpt_path: str | None
    file_backend: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Batches of this epoch, and iterations of all, that are done.
        self._batch, self._iter = 0, 0
        # Iterations that were done when the last regular checkpoint was written.
        self._saved: int | None = None
        self._position: dict[str, Any] = {}
        # Random states before the validation that is running.
        self._before_val: dict[str, Any] | None = None
        # Paths that are to go once what replaces them is there.
        self._queue: list[str] = []
        self._weights = TrainedWeights()
        #: Whether what is being saved is where training was interrupted.
        self.interrupted = False

    def before_run(self, runner: Runner) -> None:
        """Note from now on when averaged weights stand in the model.

        Args:
            runner (Runner): The runner.
        """
        super().before_run(runner)
        self._weights.watch(runner.hooks)

    def before_train(self, runner: Runner) -> None:
        """Choose how files are written; tidy up behind a run that was killed.

        Args:
            runner (Runner): The runner.
        """
        local = '://' not in str(self.out_dir or runner.work_dir)
        if local and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='mmfakd_atomic')
        self._iter = runner.iter
        # Of a validation that was broken off before, in a notebook.
        self._before_val = None
        if runner._resume and osp.basename(str(runner._load_from)) != INTERRUPTED:
            self._saved = runner.iter
        info = runner.message_hub.runtime_info
        outdated = list(filter(self._may_go, info.pop('outdated_ckpts', [])))
        super().before_train(runner)
        # The path may tell, which may be that of another folder.
        known = noted_metrics(info, self.filename_tmpl, len(self.save_best or ()) > 1)
        runner.message_hub.update_info(BEST_OF, known)
        self._move_paths(runner)
        self._sort_best(runner)
        self._tell_incomplete(runner)
        self._tell_unsaved(runner)
        if is_main_process():
            self._tidy_up(runner, outdated)

    def _tell_incomplete(self, runner: Runner) -> None:
        """Warn of checkpoints that no training can go on from as it was."""
        states = ('save_optimizer', 'save_param_scheduler')
        missing = [f'{name}=False' for name in states if not getattr(self, name)]
        if missing:
            runner.logger.warning(
                f'Checkpoints lack a state ({", ".join(missing)}): what is killed '
                'can go on from them by `--resume --allow-changes` alone, with '
                'optimizer and schedule begun anew. Leave that out of '
                '`default_hooks.checkpoint` if this training may have to be resumed.'
            )

    def _tell_unsaved(self, runner: Runner) -> None:
        """Warn of files that are asked for and will never be written."""
        loop = runner.train_loop
        in_epochs = not isinstance(loop, IterBasedTrainLoop)
        begins = getattr(loop, 'val_begin', 1)
        ends = _length(loop, in_epochs)
        validates = runner.val_loop is not None and begins <= ends
        if self.save_best and not validates:
            runner.logger.warning(
                f'save_best is {quoted(self.save_best)}, but this training validates '
                'nothing: there will be no best checkpoint. Give it val_dataloader, '
                'val_cfg and val_evaluator, and a `train_cfg.val_begin` before its '
                'end, or leave save_best out.'
            )
        first = self.save_begin or self.interval
        length = _length(loop, self.by_epoch)
        # An interval below 1 is a wish.
        if not self.save_last and self.interval > 0 and first > length:
            best = ' but the best one' if self.save_best and validates else ''
            runner.logger.warning(
                f'No checkpoint{best} will be written: the first is due after {first} '
                f'{"epochs" if self.by_epoch else "iterations"}, the training ends '
                f'after {length}, and save_last=False. Give `default_hooks.checkpoint` '
                'a smaller `interval` or `save_begin`, or save_last=True.'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Count batches from the start of the epoch.

        Args:
            runner (Runner): The runner.
        """
        self._batch, self._before_val = 0, None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any
    ) -> None:
        """Save if it is time to.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch in its epoch.
            *args: As MMEngine hands them in.
            **kwargs: Likewise.
        """
        self._batch, self._iter = batch_idx + 1, runner.iter + 1
        super().after_train_iter(runner, batch_idx, *args, **kwargs)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save if it is time to.

        Args:
            runner (Runner): The runner.
        """
        self._batch = 0
        super().after_train_epoch(runner)

    def before_val(self, runner: Runner) -> None:
        """Keep the random states: cut off, this validation is run again as a whole.

        Args:
            runner (Runner): The runner.
        """
        self._before_val = random_states()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best checkpoint, and note that this validation is done.

        Args:
            runner (Runner): The runner.
            metrics (dict[str, float]): Its scores.
        """
        self._before_val = None
        # A validation on its own has no epoch: asking for it would build the training.
        # Where that is built all the same, it has not begun, nor has this hook.
        if isinstance(runner._train_loop, BaseLoop) and hasattr(self, 'file_backend'):
            place = [runner.epoch, runner.iter]
            runner.message_hub.update_info('last_validation', place)
            super().after_val_epoch(runner, metrics)

    def save_now(self, runner: Runner) -> str:
        """Save where training is, whatever the interval. Every process has to call it.

        It may be called within ``after_train_iter`` by a hook of a lower priority, and
        within a validation. The file goes when the next regular checkpoint is there.

        Args:
            runner (Runner): The runner.

        Returns:
            str: Path of the checkpoint.

        Raises:
            FloatingPointError: If losses or weights are no longer finite, as
                :class:`CheckFiniteHook` finds: nothing could go on from such a file.
        """
        for hook in runner.hooks:
            if isinstance(hook, CheckFiniteHook):
                hook.check(runner)
        runner.message_hub.update_info('outdated_ckpts', [])
        meta = dict(epoch=runner.epoch, iter=self._iter)
        self.interrupted = True
        with self._weights.in_place():
            # Whole, whatever regular checkpoints leave out: it is there to go on from.
            self._save(
                runner,
                INTERRUPTED,
                meta,
                by_epoch=False,
                save_optimizer=True,
                save_param_scheduler=True,
            )
        self.interrupted = False
        return self._path(INTERRUPTED)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the position.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be written.
        """
        # Of several hooks one is saving; a best checkpoint has none.
        if self._position:
            checkpoint['position'], self._position = self._position, {}

    def after_train(self, runner: Runner) -> None:
        """Save where a training stops early; publish checkpoints if asked for.

        With ``save_last`` the last epoch is saved, whether it was planned to be the
        last or ``EarlyStoppingHook`` has made it so. Without, what an interruption has
        saved stays if no regular checkpoint came after it: it is the newest.

        Args:
            runner (Runner): The runner.
        """
        stopped = getattr(runner.train_loop, 'stop_training', False)
        if stopped and self.save_last and self._saved != runner.iter:
            step = runner.epoch if self.by_epoch else runner.iter
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)
        super().after_train(runner)
        self._remove_outdated()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """As MMEngine's, but what goes goes last."""
        hub = runner.message_hub
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                self._queue.append(self._path(oldest))
            self.keep_ckpt_ids.append(step)
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self._path(name)
        hub.update_info('last_ckpt', self.last_ckpt)
        # A resumed run removes what this one no longer came to remove.
        hub.update_info('outdated_ckpts', [osp.basename(p) for p in self._outdated()])
        self._save(runner, name, meta, self.by_epoch, **self.args)
        self._saved = meta['iter']
        self._queue.append(self._path(INTERRUPTED))
        self._remove_outdated()

    def _save(
        self, runner: Runner, name: str, meta: dict, by_epoch: bool, **kwargs: Any
    ) -> None:
        self._position = collect_position(runner, self._batch, self._before_val)
        states = ('save_optimizer', 'save_param_scheduler')
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=self.backend_args,
            **{**{state: getattr(self, state) for state in states}, **kwargs},
        )
        if is_main_process():
            _point_to(runner, self._path(name))
        runner.call_hook('after_save_checkpoint')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        if self.save_best:
            self._refuse_unknown_score(metrics)
            if 'auto' in self.key_indicators:
                # Settled here, as MMEngine does it next: only now it can be compared.
                self._init_rule(self.rules, list(metrics)[:1])
                self._sort_best(runner)
            backend = self.file_backend
            self.file_backend = _LateRemoval(backend, self._queue)
            super()._save_best_checkpoint(runner, metrics)
            self.file_backend = backend
            runner.call_hook('after_save_checkpoint')
            self._remove_outdated()

    def _refuse_unknown_score(self, metrics: dict[str, float]) -> None:
        """Refuse a metric that no evaluator has; MMEngine's error names it alone."""
        wanted = [key for key in self.key_indicators if key != 'auto']
        missing = [key for key in wanted if key not in metrics]
        if missing:
            near = near_names(missing[0], metrics) or list(metrics)
            raise ValueError(
                f'save_best is {quoted(self.save_best)}: the validation has no score '
                f'{quoted(missing)}. It has {quoted(near)}. Give one of these; '
                '--resume --cfg-options default_hooks.checkpoint.save_best=... goes on '
                'from the last checkpoint.'
            )

    def _may_go(self, name: str) -> bool:
        """Whether a name in a file is one that this hook gives, and removes."""
        names = f'{name_pattern(self.filename_tmpl)}|best_.*|{re.escape(INTERRUPTED)}'
        return re.fullmatch(names, name) is not None

    def _path(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _kept(self) -> set[str]:
        """Paths of the checkpoints that stay."""
        best = [getattr(self, 'best_ckpt_path', None)]
        best += getattr(self, 'best_ckpt_path_dict', {}).values()
        names = map(self.filename_tmpl.format, getattr(self, 'keep_ckpt_ids', []))
        kept = (*best, *map(self._path, names), self.last_ckpt)
        return {str(path) for path in kept if path}

    def _outdated(self) -> list[str]:
        # A constant name is written anew, not removed.
        kept = self._kept()
        return [path for path in self._queue if path not in kept]

    def _remove_outdated(self) -> None:
        outdated = self._outdated()
        self._queue.clear()
        if is_main_process():
            for path in outdated:
                _remove(self.file_backend, path)

    def _move_paths(self, runner: Runner) -> None:
        """Let paths of a resumed run point into its folder, which may have moved."""
        info, backend = runner.message_hub.runtime_info, self.file_backend
        for key, path in info.items():
            if not path or not re.match('(best|last)_ckpt', key):
                continue
            info[key] = self._path(osp.basename(str(path)))
            if self.save_best and key[0] == 'b' and not backend.isfile(info[key]):
                # Resumed in a folder of its own, or from before it was replaced.
                info[key] = None
                # An earlier training's files may have been moved, all together.
                name, start = osp.basename(str(path)), str(runner._load_from)
                beside = osp.join(osp.dirname(start), name)
                there = next((p for p in (str(path), beside) if osp.isfile(p)), '')
                left = f'stays at {there}' if there else 'is gone'
                runner.logger.warning(
                    f'The best checkpoint so far, {name}, {left}. {self.out_dir} has '
                    'none until a score is better.'
                )
        self.last_ckpt = info.get('last_ckpt')
        self._take_best_paths(info)

    def _take_best_paths(self, info: dict[str, Any]) -> None:
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = info.get('best_ckpt')
        for key in getattr(self, 'best_ckpt_path_dict', {}):
            self.best_ckpt_path_dict[key] = info.get(f'best_ckpt_{key}')

    def _sort_best(self, runner: Runner) -> None:
        """Compare with the best scores so far where they are of the same metrics."""
        hub = runner.message_hub
        before = hub.get_info(BEST_OF)
        now = list(self.key_indicators) if self.save_best else ['auto']
        if now in (['auto'], before):
            return
        hub.update_info(BEST_OF, now)
        left = hand_on_scores(hub, before, now)
        self._take_best_paths(hub.runtime_info)
        if left:
            names = ', '.join(osp.basename(path) for path in left.values() if path)
            known = set(map(in_name, before))
            new = ', '.join(metric for metric in now if in_name(metric) not in known)
            stays = f' The best checkpoint so far, {names}, stays.' if names else ''
            begins = f' The best of {new} begins here.' if new else ''
            runner.logger.warning(
                f'save_best was {", ".join(before)}, is {", ".join(now)} now.'
                f'{stays}{begins}'
            )

    def _tidy_up(self, runner: Runner, outdated: list[str]) -> None:
        backend = self.file_backend
        if runner._resume and osp.isfile(str(runner._load_from)):
            # The process that wrote it was killed before it came to that.
            _point_to(runner, runner._load_from)
        for path in set(map(self._path, outdated)) - self._kept():
            _remove(backend, path)
        if '://' in str(self.out_dir):
            return
        for folder in {str(self.out_dir), runner.work_dir}:
            if osp.isdir(folder):
                for name in backend.list_dir_or_file(folder, list_dir=False):
                    if name.endswith(_PARTS):
                        _remove(backend, osp.join(folder, name))
                        runner.logger.warning(
                            f'{osp.join(folder, name)} was removed: the process that '
                            'wrote it was killed.'
                        )

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str | None) -> None:
        """As MMEngine's, but written by the backend."""
        if ckpt_path is None:
            # Of several scores one may have brought no best checkpoint.
            return
        with self.file_backend.get_local_path(ckpt_path) as path:
            checkpoint = load_checkpoint_file(path)
        published = {k: v for k, v in checkpoint.items() if k in self.published_keys}
        file = BytesIO()
        torch.save(published, file)
        digest = sha256(file.getvalue()).hexdigest()[:8]
        out = f'{osp.splitext(ckpt_path)[0]}-{digest}.pth'
        self.file_backend.put(file.getvalue(), out)
        left_out = sorted(checkpoint.keys() - published.keys())
        runner.logger.info(f'{ckpt_path} is published as {out}, without {left_out}.')


def _length(loop: Any, by_epoch: bool) -> float:
    """Epochs or iterations of a loop; infinite where one of another kind has none."""
    length = getattr(loop, 'max_epochs' if by_epoch else 'max_iters', None)
    return length or math.inf


class _LateRemoval:
    """A file backend that notes what is to be removed."""

    def __init__(self, backend: Any, queue: list[str]) -> None:
        self.backend = backend
        self.remove = self.rmtree = queue.append

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def _point_to(runner: Runner, path: str) -> None:
    """Write ``last_checkpoint``, by which other programs find the newest one."""
    AtomicBackend().put_text(path, osp.join(runner.work_dir, 'last_checkpoint'))


def _remove(backend: Any, path: str) -> None:
    """Remove a file, or a folder of a strategy, if it is there."""
    with suppress(FileNotFoundError):
        if backend.isfile(path):
            backend.remove(path)
        elif backend.isdir(path):
            backend.rmtree(path)
