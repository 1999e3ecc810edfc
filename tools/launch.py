# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What `train.py` and `test.py` share of their command line."""

import argparse
import os
import os.path as osp

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmfakd.utils.init_cpu_distributed import init_cpu_distributed


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for overriding a config and for starting several processes.

    Args:
        parser (argparse.ArgumentParser): The parser, changed in place.
    """
    parser.add_argument('--work-dir', help='folder for logs and what is written')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config: key=value, key="[a,b]", '
        'key="[(a,b),(c,d)]"; no white space',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch 2's launcher sends `--local-rank`, older ones `--local_rank`.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def merge_launch_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Put launcher and work dir into the config.

    Args:
        cfg (Config): The config, changed in place.
        args (argparse.Namespace): The command line, with ``config``.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config, on CPU with several processes if asked for.

    Args:
        cfg (Config): The whole config.

    Returns:
        Runner: MMEngine's, or that of ``runner_type``.
    """
    init_cpu_distributed(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
