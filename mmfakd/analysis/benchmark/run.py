# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The benchmark: layers, pyramids, steps, growth."""

from __future__ import annotations

import os.path as osp
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mmengine
import torch
from mmengine.logging import MMLogger

from mmfakd.engine.launch import parse_cfg_options
from mmfakd.messages import progress

from .growth import save_growth
from .limits import limit_cases
from .machine import describe_machine
from .measure import Case, Options, measure
from .report import format_growth, format_machine, format_suite
from .step import step_cases
from .suites import CONFIGS, growth_cases, layer_cases, pyramid_cases

SUITES = ('layers', 'limits', 'pyramid', 'step', 'growth')
STEP_CONFIGS = [
    str(CONFIGS / 'cifar100' / f'{method}_r56_r20_1xb64_cifar100.py')
    for method in ('fakd_review', 'reviewkd')
]


def collect(settings: dict[str, Any], options: Options) -> dict[str, list[Case]]:
    """Collect what is asked for.

    Args:
        settings (dict): The options.
        options (Options): Device and precision.

    Returns:
        dict[str, list[Case]]: Suite -> its cases.

    Raises:
        ValueError: If nothing is left to measure or to draw, or a config is not fit
            for it.
    """
    wanted = list(settings['suite'])
    if 'all' in wanted:
        wanted = [*SUITES, *(['detection'] if 'detection' in wanted else [])]
    makers: dict[str, Callable[..., list[Case]]] = dict(
        layers=layer_cases,
        limits=limit_cases,
        pyramid=pyramid_cases,
        growth=growth_cases,
    )
    makers['step'] = lambda options, batch_size: step_cases(
        settings['config'],
        options,
        batch_size,
        settings['image_size'],
        settings['cfg_options'],
    )
    if 'detection' in wanted:
        # Classification needs no mmdet.
        from .detection import detection_cases

        makers['detection'] = partial(detection_cases, height=settings['image_size'])
    suites = {name: makers[name](options, settings['batch_size']) for name in wanted}
    chosen = {
        name: [case for case in cases if re.search(settings['only'], case.name)]
        for name, cases in suites.items()
    }
    if not any(chosen.values()):
        names = '\n'.join(case.name for cases in suites.values() for case in cases)
        only = settings['only']
        raise ValueError(f'--only {only!r} fits none of the cases:\n{names}')
    if settings['plot'] and not chosen.get('growth'):
        raise ValueError(
            '--plot draws the suite growth, of which --suite and --only leave nothing.'
        )
    return {name: cases for name, cases in chosen.items() if cases}


def check(settings: dict[str, Any]) -> None:
    """Refuse what cannot be measured.

    Args:
        settings (dict): The options.

    Raises:
        ValueError: If the device is not there, or cannot do what is asked for.
    """
    if settings['device'] == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            f'--device cuda: torch {torch.__version__} (built for CUDA '
            f'{torch.version.cuda}) finds no GPU here. Check `nvidia-smi`, or measure '
            'with --device cpu.'
        )
    if settings['device'] == 'cpu' and settings['amp'] == 'float16':
        raise ValueError(
            '--amp float16: on a CPU training has no half precision but bfloat16; '
            'take that, or --device cuda.'
        )


def run_benchmark(out: Sequence[str] = (), **settings: Any) -> None:
    """Measure, print tables and write files.

    Args:
        out (Sequence[str]): Files to write: all figures (.json), the growth as a
            picture.
        **settings: Options of ``mmfakd benchmark``.

    Raises:
        FileNotFoundError: If a config is not there.
        ValueError: If nothing is left to measure or to draw, or the device cannot do
            what is asked for.
    """
    # Models speak of their teachers.
    MMLogger.get_instance('benchmark', log_level='WARNING')
    settings['threads'] = settings['threads'] or torch.get_num_threads()
    settings['config'] = settings['config'] or STEP_CONFIGS
    settings['cfg_options'] = parse_cfg_options(settings['cfg_options'])
    settings['plot'] = [path for path in out if not path.endswith('.json')]
    check(settings)
    options = Options(
        *(settings[key] for key in ('device', 'amp', 'threads', 'rounds', 'min_time'))
    )
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    try:
        suites = collect(settings, options)
    except re.error as error:
        raise ValueError(f'--only {settings["only"]!r}: {error}') from error
    report: dict = dict(
        machine=describe_machine(options), settings=_settings(settings), suites={}
    )
    print(format_machine(report))
    for name, cases in suites.items():
        results = report['suites'][name] = []
        for number, case in enumerate(cases, 1):
            results.append(measure(case, options))
            progress(f'{name}: {number} of {len(cases)}, {case.name}')
            # After each, so that a run that is stopped leaves something behind.
            for path in out:
                if path.endswith('.json'):
                    mmengine.dump(report, path, indent=2)
        print(f'\n{format_suite(name, results)}', flush=True)
        if name == 'growth':
            print(f'\n{format_growth(results)}', flush=True)
    for path in settings['plot']:
        save_growth(report['suites']['growth'], path)


def _settings(settings: dict[str, Any]) -> dict:
    """The options without the paths in them."""
    configs = [osp.basename(path) for path in settings['config']]
    return {k: v for k, v in dict(settings, config=configs).items() if k != 'plot'}
