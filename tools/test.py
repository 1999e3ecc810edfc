# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint: of a distillation (its student), or of a plain model.

A student is evaluated without the teacher's weights; a plain student file that
training wrote beside a checkpoint is accepted with the distillation config, too.
"""

import argparse

# Before any config is read: it makes `mmfakd::` inheritance known.
import mmfakd  # noqa: F401 isort: skip

import mmengine
from launch import add_launch_arguments, build_runner, merge_launch_arguments
from mmengine.config import Config
from mmengine.evaluator import DumpResults

from mmfakd.utils.export_student import student_config
from mmfakd.utils.fetch_checkpoint import fetch_checkpoint


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint: path, URL or model-zoo name')
    parser.add_argument('--out', help='file for the results (.pkl, .json, .yml)')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what --out holds; predictions by default',
    )
    parser.add_argument(
        '--amp', action='store_true', help='evaluate with automatic mixed precision'
    )
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument(
        '--show', action='store_true', help='show the predictions in a window'
    )
    add_launch_arguments(parser)
    args = parser.parse_args()
    if args.out is None and args.out_item is not None:
        parser.error('--out-item needs --out, the file to write.')
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Put the command line into the config.

    Args:
        cfg (Config): The config as read.
        args (argparse.Namespace): The command line.

    Returns:
        Config: The config to run: for a plain student file that of the student.

    Raises:
        ValueError: If pictures are asked for and the config has no hook for them.
    """
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if 'architecture' in cfg.model:
        weights = fetch_checkpoint(args.checkpoint)
        weights = weights.get('state_dict', weights)
        if not any(key.startswith('architecture.') for key in weights):
            cfg = student_config(cfg)
    merge_launch_arguments(cfg, args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        hook = cfg.get('default_hooks', {}).get('visualization')
        if hook is None:
            raise ValueError(
                '--show, --show-dir: the config has no `default_hooks.visualization`; '
                "add dict(type='VisualizationHook') of mmpretrain or "
                "dict(type='DetVisualizationHook') of mmdet."
            )
        if 'Det' in hook.type:
            hook.draw, hook.show, hook.test_out_dir = True, args.show, args.show_dir
        else:
            hook.enable, hook.show, hook.out_dir = True, args.show, args.show_dir
    return cfg


def main() -> None:
    """Build the runner and evaluate."""
    args = parse_args()
    cfg = merge_args(Config.fromfile(args.config), args)
    runner = build_runner(cfg)
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
