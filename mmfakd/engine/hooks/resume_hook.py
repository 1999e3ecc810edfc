# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A resumed training goes on as the uninterrupted one would have."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.optim import BaseOptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.checkpoints.fetch import local_file
from mmfakd.checkpoints.latest import (
    check_content,
    check_resumable,
    checkpoint_folders,
    find_checkpoint,
    needed_states,
)
from mmfakd.datasets.wrappers import image_caches
from mmfakd.engine.data_seed import take_data_seed
from mmfakd.engine.drop_message import drop_message
from mmfakd.engine.kept_numbers import numbers_of_sizes, restore_numbers
from mmfakd.engine.position import (
    accumulation_cycles,
    at_update,
    drew_alike,
    go_on_from,
    loss_scales,
    restore_buffers,
    restore_gradients,
    restore_random,
)
from mmfakd.engine.replayed_samplers import replay_epochs
from mmfakd.engine.resumed_batches import ResumedBatches
from mmfakd.engine.unwrap import unwrapped_model
from mmfakd.registry import HOOKS

from .epoch_seed_hook import EpochSeedHook

_KEPT = 'Images that transforms keep for later ones (as CachedMosaic does)'


@HOOKS.register_module()
class ResumeHook(Hook):
    """Find the checkpoint to go on from, and restore the exact position.

    - ``resume=True`` without a path takes the newest checkpoint that is complete, see
      :func:`~mmfakd.checkpoints.latest.find_checkpoint`.
    - Within an epoch training goes on at the next batch: those that are done are
      loaded and dropped, so that data workers stand where they stood.
    - Loaders that were built with another seed take that of the checkpoint.
    - Random states, the gradients of an incomplete cycle of accumulation, and numbers
      that stock modules keep beside their weights are set.
    - A validation that was due and is not in the checkpoint is run.
    - ``EarlyStoppingHook`` learns the scores so far.

    It takes checkpoints of ``SafeCheckpointHook`` for that. Others resume as in
    MMEngine, and what is not exact is told. With another batch or number of processes
    training goes on after the same share of the epoch.
    """

    # First: a validation that was missed comes before all else.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._position: dict[str, Any] = {}
        # What a checkpoint that comes from a store is to hold beside weights.
        self._needed: tuple[str, ...] | None = None

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint where none is named.

        Args:
            runner (Runner): The runner.

        Raises:
            FileNotFoundError: If a named checkpoint is not there.
            RuntimeError: If the processes have chosen different ones.
            ValueError: If training cannot go on from a named one.
        """
        if runner._resume:
            self._choose(runner)
        # What follows waits for all processes, also for those that resume nothing.
        name = osp.basename(str(runner._load_from or '')) or None
        _check_agreement('(resume, checkpoint)', (bool(runner._resume), name))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the position that a resumed run is to take.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What has been read.

        Raises:
            ValueError: If training cannot go on from it.
        """
        if runner._resume:
            if self._needed is not None:
                check_content(str(runner._load_from), checkpoint, self._needed)
            go_on_from(runner, checkpoint)
            take_data_seed(runner, checkpoint['meta'].get('seed'))
            self._position = checkpoint.get('position') or _old_position(
                runner, checkpoint
            )
            if any(self._position.get('gradients', [])):
                self._position.setdefault('cycles', _old_cycles(checkpoint['meta']))
                # Now: others may let the state of the optimizer start anew.
                scales = loss_scales(checkpoint.get('optimizer', {}))
                self._position['scales'] = scales
                _count_quietly(runner.optim_wrapper)

    def before_train(self, runner: Runner) -> None:
        """Prepare the loop to go on within an epoch.

        Args:
            runner (Runner): The runner.

        Raises:
            RuntimeError: If the processes do not stand at the same iteration, as they
                have read different checkpoints.
            NotImplementedError: If a loop of another kind is resumed within an epoch.
            ValueError: If the checkpoint counts iterations, and the loop epochs.
        """
        try:
            self._prepare(runner)
        finally:
            vars(runner.optim_wrapper).pop('initialize_count_status', None)

    def _prepare(self, runner: Runner) -> None:
        """Bring runner and loop to the position."""
        _check_agreement('(epoch, iteration)', (runner.epoch, runner.iter))
        if runner._resume:
            _recall_scores(runner)
            _tell_end(runner)
            replay_epochs(runner.train_loop)
        position = self._position
        if not position:
            return
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            _count_in_present_batches(runner, position)
        _warn_of_workers(runner)
        _warn_of_caches_across_epochs(runner)
        restore_buffers(runner, position.get('buffers', []))
        # Earlier versions knew those that are sizes of batches.
        numbers = position.get('numbers') or numbers_of_sizes(position.get('sizes', {}))
        restore_numbers(unwrapped_model(runner), numbers)
        _restore_gradients(runner, position)
        if isinstance(loop, IterBasedTrainLoop):
            if getattr(loop, 'fast_forward_on_resume', False):
                # The user's wish: nothing is dropped, so this is the place.
                self._go_on(runner)
                return
            batches = loop.dataloader_iterator
            loop.dataloader_iterator = ResumedBatches(
                batches, runner.iter, lambda: self._go_on(runner)
            )
        elif position['batch']:
            if type(loop).run_epoch is not EpochBasedTrainLoop.run_epoch:
                raise NotImplementedError(
                    f'{type(loop).__name__} cannot go on within an epoch. Resume from '
                    'a checkpoint that was written at the end of one.'
                )
            loop.run_epoch = lambda: self._finish_epoch(runner)
        elif self._misses_validation(runner) and _is_stock(loop):
            # The loop validates by itself, and looks whether that ends the training.
            loop.run_epoch = lambda: self._end_epoch(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Go on at the start of an epoch.

        Args:
            runner (Runner): The runner.
        """
        in_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        if self._position and not self._position['batch'] and not in_iterations:
            self._go_on(runner)

    def after_train(self, runner: Runner) -> None:
        """Run the last validation if it alone was missed.

        Args:
            runner (Runner): The runner.
        """
        if self._position:
            self._go_on(runner)

    def _choose(self, runner: Runner) -> None:
        if runner._load_from is not None:
            self._check_named(runner)
            return
        outs = [hook.out_dir for hook in runner.hooks if hasattr(hook, 'out_dir')]
        folders = checkpoint_folders(runner.work_dir, outs)
        if any('://' in folder for folder in folders):
            # MMEngine takes the one that `last_checkpoint` names.
            return
        found = find_checkpoint(*folders)
        for reason in found.skipped:
            runner.logger.warning(f'Skipped: {reason}')
        if found.path is None:
            runner._resume = False
            runner.logger.warning(
                f'{runner.work_dir} has no checkpoint to go on from: training starts '
                'from the beginning.'
            )
        runner._load_from = found.path

    def _check_named(self, runner: Runner) -> None:
        """Check a named checkpoint; that of a store is not fetched only for this."""
        source = runner._load_from = osp.expanduser(runner._load_from)
        allowed = any(getattr(h, 'allow_changes', False) for h in runner.hooks)
        needed = () if allowed else needed_states(runner.param_schedulers)
        file = local_file(source)
        if file is None:
            self._needed = needed
        else:
            check_resumable(file, needed, source)

    def _finish_epoch(self, runner: Runner) -> None:
        """``run_epoch`` of the loop, once, from the middle on."""
        loop, done = runner.train_loop, self._position['batch']
        del loop.run_epoch
        runner.call_hook('before_train_epoch')
        runner.model.train()
        batches: Iterator = iter(())
        if done < len(loop.dataloader):
            runner.logger.info(
                f'Epoch {runner.epoch + 1} goes on after batch {done} of '
                f'{len(loop.dataloader)}: what is done is loaded again and dropped.'
            )
            batches = enumerate(loop.dataloader)
            for _ in islice(batches, done):
                pass
        self._go_on(runner)
        for index, batch in batches:
            loop.run_iter(index, batch)
        runner.call_hook('after_train_epoch')
        loop._epoch += 1

    def _end_epoch(self, runner: Runner) -> None:
        """``run_epoch`` of the loop, once, where nothing but a validation is left."""
        del runner.train_loop.run_epoch
        position, self._position = self._position, {}
        restore_random(position['random'])
        _stand_before_validation(runner)

    def _misses_validation(self, runner: Runner) -> bool:
        position = self._position
        return bool(position['random']) and _validation_missing(runner, position)

    def _go_on(self, runner: Runner) -> None:
        """Take the random states, and validate if that was missed."""
        missing = self._misses_validation(runner)
        position, self._position = self._position, {}
        if position['random']:
            _warn_of_caches(runner, position)
            restore_random(position['random'])
        if missing:
            _stand_before_validation(runner)
            runner.val_loop.run()


def _tell_end(runner: Runner) -> None:
    """Warn that a training goes on from where it ends already."""
    in_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
    unit, key = ('iter', 'max_iters') if in_iterations else ('epoch', 'max_epochs')
    done, last = getattr(runner, unit), getattr(runner.train_loop, key, None)
    if last is not None and done >= last:
        runner.logger.warning(
            f'NOTHING IS LEFT TO TRAIN: the checkpoint was written after {unit} '
            f'{done}, and the training ends after {last}. To go on, give a larger '
            f'`train_cfg.{key}`, and a `param_scheduler` that lasts as long.'
        )


def _is_stock(loop: EpochBasedTrainLoop) -> bool:
    """Whether a loop validates after each epoch as MMEngine's does."""
    stock = EpochBasedTrainLoop
    return type(loop).run is stock.run and type(loop).run_epoch is stock.run_epoch


def _stand_before_validation(runner: Runner) -> None:
    runner.logger.info('The validation that was missed is run now.')
    # Where there are epochs, it belongs to the one that is over.
    hub = runner.message_hub
    hub.update_info('epoch', max(0, hub.get_info('epoch') - 1))
    hub.update_info('iter', max(0, runner.iter - 1))


def _check_agreement(what: str, own: tuple) -> None:
    """Compare something of this process with that of all others."""
    found = all_gather_object(own)
    if len(set(found)) > 1:
        raise RuntimeError(
            f'The processes have different {what}: {found}. They have read different '
            'checkpoints; give all machines the same work dir on a shared file system, '
            'or copy the checkpoint to each.'
        )


def _old_position(runner: Runner, checkpoint: dict) -> dict[str, Any]:
    """Position of a checkpoint of MMEngine's own hook, which only counts iterations."""
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return {}
    length = len(runner.train_dataloader)
    info = checkpoint['message_hub']['runtime_info']
    if {'max_iters', 'max_epochs'} <= info.keys():
        length = info['max_iters'] // info['max_epochs']
    epoch, iteration = (checkpoint['meta'][key] for key in ('epoch', 'iter'))
    if _counted_iterations(checkpoint['meta']):
        return dict(batch=iteration, epoch_length=0, random=[])
    batch = iteration - epoch * length
    if not 0 <= batch <= length:
        return {}
    if batch:
        runner.logger.warning(
            'The checkpoint was written within an epoch, without random states: '
            f'training goes on after batch {batch} of {length}, but not exactly as it '
            'would have. SafeCheckpointHook writes checkpoints that do.'
        )
    return dict(batch=batch, epoch_length=length, random=[])


def _counted_iterations(meta: dict) -> bool:
    """Whether a checkpoint is of a loop to which all iterations are one epoch."""
    text = meta.get('cfg')
    try:
        cfg = (read_config_text(text).get('train_cfg') if text else None) or {}
    except ValueError:
        return False
    return 'IterBased' in str(cfg.get('type')) or cfg.get('by_epoch') is False


def _count_in_present_batches(runner: Runner, position: dict[str, Any]) -> None:
    """Let loop, optimizer and position count epochs of the present length."""
    loop, wrapper = runner.train_loop, runner.optim_wrapper
    then, now = position['epoch_length'], len(loop.dataloader)
    if not then:
        raise ValueError(
            f'The checkpoint is of an iteration based loop, stopped after iteration '
            f'{loop.iter}, and train_cfg has a {type(loop).__name__} now. Resume with '
            'the train_cfg that it was written with, or begin a new training from its '
            'weights (--cfg-options load_from=...).'
        )
    if now == then:
        return
    batch, iteration = position['batch'], loop.iter
    position['batch'] = batch * now // then
    loop._iter = loop.epoch * now + position['batch']
    wrapper.initialize_count_status(runner.model, loop.iter, loop.max_iters)
    runner.logger.warning(
        f'An epoch had {then} batches and has {now} now: in place of iteration '
        f'{iteration}, batch {batch} of epoch {loop.epoch + 1}, training goes on after '
        f'iteration {loop.iter}, batch {position["batch"]}.'
    )


def _old_cycles(meta: dict[str, Any]) -> list[list[int]] | None:
    """Cycles of accumulation of a checkpoint whose position does not have them yet."""
    accumulation = (meta.get('mmfakd') or {}).get('accumulation')
    return [[meta['iter'] % accumulation, accumulation]] if accumulation else None


def _count_quietly(wrapper: Any) -> None:
    """Let an optimizer wrapper not say that gradients are lost.

    MMEngine says so within any cycle. What is so is told where they are restored.
    """
    # A validation with the config of a resumed training builds none.
    if not isinstance(wrapper, BaseOptimWrapper):
        return
    count = wrapper.initialize_count_status

    def count_quietly(*args: Any) -> None:
        with drop_message('the gradient of some iterations is lost'):
            count(*args)

    wrapper.initialize_count_status = count_quietly


def _restore_gradients(runner: Runner, position: dict[str, Any]) -> None:
    """Go on with an incomplete cycle of accumulation, where this run is in one."""
    gradients = position.get('gradients', [])
    if not any(gradients):
        return
    if at_update(runner):
        runner.logger.warning(
            'The gradients of the incomplete cycle of accumulation are left out: with '
            'the present batch and accumulative_counts a cycle begins here.'
        )
        return
    restore_gradients(runner, gradients, position['scales'])
    text = 'The gradients of the incomplete cycle of accumulation are restored'
    reasons = list(_differences(runner, position['cycles'], len(gradients)))
    if reasons:
        runner.logger.warning(f'{text}, but {" and ".join(reasons)}.')
    else:
        runner.logger.info(f'{text}.')


def _differences(
    runner: Runner, then: list[list[int]] | None, processes: int
) -> Iterator[str]:
    """Say why a cycle of accumulation does not go on exactly where it was."""
    cycles = accumulation_cycles(runner)
    if then is None:
        yield (
            'the checkpoint does not say of how many batches: with other batches or '
            'another accumulative_counts the cycle does not go on as it was'
        )
    # Older checkpoints know the first optimizer's alone.
    elif then != cycles[: len(then)]:
        was, now = (
            ', '.join(f'{done} of {length}' for done, length in place)
            for place in (then, cycles[: len(then)])
        )
        yield f'are those of {was} batches of a cycle (now {now})'
    if processes != get_world_size():
        yield f'are the mean of those of {processes} processes (now {get_world_size()})'


def _validation_missing(runner: Runner, position: dict[str, Any]) -> bool:
    """Whether a validation was due at this place and did not come to its end."""
    loop = runner.train_loop
    done = runner.message_hub.runtime_info.get('last_validation') or [None, None]
    if isinstance(loop, IterBasedTrainLoop):
        step, last, done = runner.iter, runner.max_iters, done[1]
    elif position['batch']:
        return False
    else:
        step, last, done = runner.epoch, runner.max_epochs, done[0]
    if runner.val_loop is None or step == done:
        return False
    loop._decide_current_val_interval()
    return step >= loop.val_begin and (step % loop.val_interval == 0 or step == last)


def _recall_scores(runner: Runner) -> None:
    """Tell hooks that wait for better scores those that there were.

    MMEngine's ``EarlyStoppingHook`` keeps no state in checkpoints.
    """
    scalars = runner.message_hub.log_scalars
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            name = f'val/{hook.monitor}'
            scores = scalars[name].data[0] if name in scalars else []
            for score in scores:
                hook.after_val_epoch(runner, {hook.monitor: float(score)})


def _keeps_images(runner: Runner) -> bool:
    """Whether transforms in this process put earlier images into later ones."""
    loader = runner.train_dataloader
    return not getattr(loader, 'num_workers', 0) and bool(image_caches(loader))


def _warn_of_caches_across_epochs(runner: Runner) -> None:
    seeded = any(isinstance(hook, EpochSeedHook) for hook in runner.hooks)
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if in_epochs and runner.epoch and not seeded and _keeps_images(runner):
        runner.logger.warning(
            f'{_KEPT} of the epoch before are not in the checkpoint: augmentation '
            'differs from that of an uninterrupted run. Add default_hooks.epoch_seed='
            "dict(type='mmfakd.EpochSeedHook'), or train with data workers "
            '(num_workers), to have it exact.'
        )


def _warn_of_caches(runner: Runner, position: dict[str, Any]) -> None:
    """Tell if what is loaded again has left other images with transforms."""
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    within = position['batch'] or not in_epochs
    if within and _keeps_images(runner) and not drew_alike(position['random']):
        runner.logger.warning(
            f'{_KEPT} are not in the checkpoint, and were drawn with other random '
            'numbers now: augmentation may differ from that of an uninterrupted run. '
            'With data workers (num_workers) it is exact.'
        )


def _warn_of_workers(runner: Runner) -> None:
    loader = runner.train_dataloader
    seeded = any(isinstance(hook, EpochSeedHook) for hook in runner.hooks)
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if in_epochs and loader.num_workers and loader.persistent_workers and not seeded:
        runner.logger.warning(
            'Data workers that live longer than an epoch begin anew on resume: '
            'augmentation differs from that of an uninterrupted run. Add '
            "default_hooks.epoch_seed=dict(type='mmfakd.EpochSeedHook') to have it "
            'exact.'
        )
