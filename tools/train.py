# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Train a model, in general a student under a teacher."""

import argparse

# Before any config is read: it makes `mmfakd::` inheritance known.
import mmfakd  # noqa: F401 isort: skip

from launch import add_launch_arguments, build_runner, merge_launch_arguments
from mmengine.config import Config, ConfigDict


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from the given checkpoint, or without one from the last in the '
        'work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train with automatic mixed precision'
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate while training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size of all processes',
    )
    parser.add_argument(
        '--teacher-ckpt', help="the teacher's weights: path, URL or model-zoo name"
    )
    parser.add_argument(
        '--student-ckpt', help='weights that the student starts from, likewise'
    )
    parser.add_argument('--seed', type=int, help='random seed')
    add_launch_arguments(parser)
    return parser.parse_args()


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Put the command line into the config.

    Args:
        cfg (Config): The config as read.
        args (argparse.Namespace): The command line.

    Returns:
        Config: The same config, changed.

    Raises:
        ValueError: If an option does not go with the config.
    """
    # First, so that what follows meets the final config.
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    merge_launch_arguments(cfg, args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                '--auto-scale-lr: the config has no '
                '`auto_scale_lr = dict(base_batch_size=...)`; add the total batch '
                'size that its learning rate is meant for.'
            )
        cfg.auto_scale_lr.enable = True
    if args.seed is not None:
        cfg.randomness = ConfigDict(cfg.get('randomness') or {}, seed=args.seed)
    for name in ('teacher_ckpt', 'student_ckpt'):
        value = getattr(args, name)
        if value is None:
            continue
        if 'teacher' not in cfg.model:
            raise ValueError(
                f'--{name.replace("_", "-")}: the model of {args.config}, '
                f'{cfg.model.get("type")}, has no teacher; choose a distillation '
                'config, or start a plain model with `--cfg-options load_from=...`.'
            )
        cfg.model[name] = value
    return cfg


def main() -> None:
    """Build the runner and train."""
    args = parse_args()
    cfg = merge_args(Config.fromfile(args.config), args)
    build_runner(cfg).train()


if __name__ == '__main__':
    main()
