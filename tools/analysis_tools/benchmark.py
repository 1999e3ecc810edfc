# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Measure time, peak memory and parameters: layers, pyramids, steps, growth.

    python tools/analysis_tools/benchmark.py --device cuda --json gpu.json \
        --plot growth.png

    layers   each layer against a naive version of the published equations
    limits   each layer against what its parts take alone, as plain operations
    pyramid  the connectors of FAM-KD, of ReviewKD, and of naive layers
    step     whole training steps against the student's with the teacher's forward pass
    growth   a level of FAM-KD and of ReviewKD, by image size, channels and batch
    detection  the connectors of Faster R-CNN R101-R50 at 800 x 1333, against each other
             and against its training step; takes long, hence not part of "all"

What is compared takes turns in one run. The other sides are relative to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import os.path as osp
import re
import sys
from collections.abc import Callable
from functools import partial

if __name__ == '__main__':
    # Before torch is loaded. Where there is no driver the profiler of a CUDA build
    # complains, and of memory that it has not seen being allocated.
    os.environ.setdefault('KINETO_LOG_LEVEL', '5')
    os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')

import mmfakd  # noqa: F401 isort: skip

import torch
from benchmarking.growth import save_growth
from benchmarking.limits import limit_cases
from benchmarking.machine import describe_machine
from benchmarking.measure import Case, Options, measure
from benchmarking.report import format_growth, format_machine, format_suite
from benchmarking.step import step_cases
from benchmarking.suites import CONFIGS, growth_cases, layer_cases, pyramid_cases
from mmengine.config import DictAction
from mmengine.logging import MMLogger

SUITES = ('layers', 'limits', 'pyramid', 'step', 'growth')
STEP_CONFIGS = [
    str(CONFIGS / 'cifar100' / f'{method}_r56_r20_1xb64_cifar100.py')
    for method in ('fakd_review', 'reviewkd')
]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--suite', nargs='+', choices=[*SUITES, 'detection', 'all'], default=['all']
    )
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument(
        '--threads',
        type=_positive,
        default=torch.get_num_threads(),
        help="threads of the CPU; default: torch's, %(default)s here",
    )
    parser.add_argument(
        '--rounds', type=_positive, default=11, help='turns of each side'
    )
    parser.add_argument(
        '--min-time', type=float, default=0.2, help='seconds that a turn lasts'
    )
    parser.add_argument(
        '--amp', choices=['none', 'float16', 'bfloat16'], default='none'
    )
    parser.add_argument(
        '--batch-size',
        type=_positive,
        help="in place of each case's own; of growth, the middle one",
    )
    parser.add_argument(
        '--only', default='', help='regular expression: cases to measure, by name'
    )
    step = parser.add_argument_group('suite step')
    step.add_argument(
        '--config',
        nargs='+',
        default=STEP_CONFIGS,
        help='distillation configs of one pair; default: FAM-KD and ReviewKD of '
        'ResNet-56 and ResNet-20 on CIFAR-100',
    )
    step.add_argument(
        '--image-size',
        type=_positive,
        help="pixels, in place of the first config's; of detection, the height",
    )
    step.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='override settings of the configs: key=value',
    )
    parser.add_argument('--json', help='file to write all figures to')
    parser.add_argument(
        '--plot', help='picture of the growth to write (.png, .pdf, .svg)'
    )
    return parser.parse_args()


def collect(args: argparse.Namespace, options: Options) -> dict[str, list[Case]]:
    """Collect what is asked for.

    Args:
        args (argparse.Namespace): The command line.
        options (Options): Device and precision.

    Returns:
        dict[str, list[Case]]: Suite -> its cases.

    Raises:
        ValueError: If nothing is left to measure or to draw, or a config is not fit
            for it.
    """
    wanted = list(args.suite)
    if 'all' in wanted:
        wanted = [*SUITES, *(['detection'] if 'detection' in wanted else [])]
    makers: dict[str, Callable[..., list[Case]]] = dict(
        layers=layer_cases,
        limits=limit_cases,
        pyramid=pyramid_cases,
        growth=growth_cases,
    )
    makers['step'] = lambda options, batch_size: step_cases(
        args.config, options, batch_size, args.image_size, args.cfg_options
    )
    if 'detection' in wanted:
        # Classification needs no mmdet.
        from benchmarking.detection import detection_cases

        makers['detection'] = partial(detection_cases, height=args.image_size)
    suites = {name: makers[name](options, args.batch_size) for name in wanted}
    chosen = {
        name: [case for case in cases if re.search(args.only, case.name)]
        for name, cases in suites.items()
    }
    if not any(chosen.values()):
        names = '\n'.join(case.name for cases in suites.values() for case in cases)
        raise ValueError(f'--only {args.only!r} fits none of the cases:\n{names}')
    if args.plot and not chosen.get('growth'):
        raise ValueError(
            '--plot draws the suite growth, of which --suite and --only leave nothing.'
        )
    return {name: cases for name, cases in chosen.items() if cases}


def check(args: argparse.Namespace) -> None:
    """Refuse what cannot be measured.

    Args:
        args (argparse.Namespace): The command line.

    Raises:
        ValueError: If the device is not there, or cannot do what is asked for.
    """
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            f'--device cuda: torch {torch.__version__} (built for CUDA '
            f'{torch.version.cuda}) finds no GPU here. Check `nvidia-smi`, or measure '
            'with --device cpu.'
        )
    if args.device == 'cpu' and args.amp == 'float16':
        raise ValueError(
            '--amp float16: on a CPU training has no half precision but bfloat16; '
            'take that, or --device cuda.'
        )


def main() -> None:
    """Measure what the command line asks for."""
    args = parse_args()
    # Models speak of their teachers.
    MMLogger.get_instance('benchmark', log_level='WARNING')
    options = Options(args.device, args.amp, args.threads, args.rounds, args.min_time)
    try:
        check(args)
        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        suites = collect(args, options)
        report: dict = dict(
            machine=describe_machine(options), settings=_settings(args), suites={}
        )
        print(format_machine(report))
        for name, cases in suites.items():
            results = report['suites'][name] = []
            for number, case in enumerate(cases, 1):
                results.append(measure(case, options))
                _progress(f'{name}: {number} of {len(cases)}, {case.name}')
                # After each, so that a run that is stopped leaves something behind.
                if args.json:
                    with open(args.json, 'w') as file:
                        json.dump(report, file, indent=2)
            print(f'\n{format_suite(name, results)}', flush=True)
            if name == 'growth':
                print(f'\n{format_growth(results)}', flush=True)
        if args.plot:
            save_growth(report['suites']['growth'], args.plot)
    except (FileNotFoundError, ValueError, re.error) as error:
        sys.exit(str(error))


def _settings(args: argparse.Namespace) -> dict:
    """The command line without the paths in it."""
    settings = dict(vars(args), config=[osp.basename(path) for path in args.config])
    return {k: v for k, v in settings.items() if k not in ('json', 'plot')}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text}: expected a positive number')
    return number


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == '__main__':
    main()
