# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which of MMEngine's runners can train."""

from __future__ import annotations

from mmfakd.model_zoo.type_names import short_name


def check_runner(kind: object) -> None:
    """Refuse MMEngine's ``FlexibleRunner``.

    It reads a checkpoint before any hook is asked which, so that a resume is neither
    exact nor compared with the run before, and its FSDP and DeepSpeed strategies write
    folders in place of checkpoint files.

    Args:
        kind (object): A runner's name or class.

    Raises:
        ValueError: If it is ``FlexibleRunner``.
    """
    name = short_name(kind)
    if name == 'FlexibleRunner':
        raise ValueError(
            f"runner_type={name!r}: expected MMEngine's Runner, which alone resumes "
            'exactly and writes student files. Remove `runner_type` and `strategy` '
            'from the config. Several processes train with DistributedDataParallel by '
            'themselves (`mmfakd train CONFIG --nproc N`); against a lack of memory '
            'there are `--amp`, a smaller batch with '
            '`optim_wrapper.accumulative_counts`, and `with_cp=True` of a backbone.'
        )
