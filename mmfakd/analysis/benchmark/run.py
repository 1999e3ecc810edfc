# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The benchmark: layers, pyramids, steps, growth."""

from __future__ import annotations

import os.path as osp
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import mmengine
import torch
from mmengine.logging import MMLogger

from mmfakd.checkpoints.atomic import whole_file
from mmfakd.compat.running_loop import start_message_hub
from mmfakd.engine.cfg_options import parse_cfg_options
from mmfakd.messages import progress
from mmfakd.model_zoo.outputs import check_outputs
from mmfakd.pictures.picture_file import check_picture_name

from .compiled import compile_cases
from .growth import save_growth
from .launches import launch_cases
from .limits import limit_cases
from .machine import describe_machine
from .measure import Case, Options, measure
from .report import format_growth, format_machine, format_suite
from .step import step_cases
from .suites import CONFIGS, PYRAMIDS, growth_cases, layer_cases, pyramid_cases
from .ways import way_cases

# Options that only some suites take, by what calls them on the command line.
_OF_SUITES = {
    '--config': ('step',),
    '--cfg-options': ('step',),
    '--image-size': ('step', 'detection', 'launches'),
}
STEP_CONFIGS = [str(CONFIGS / path) for path in PYRAMIDS['R56-R20'][:2]]


def run_benchmark(
    suite: Sequence[str] = ('all',),
    out: Sequence[str] = (),
    only: str = '',
    batch_size: int | None = None,
    config: Sequence[str] | None = None,
    image_size: int | None = None,
    cfg_options: Sequence[str] | None = None,
    threads: int | None = None,
    **measuring: Any,
) -> None:
    """Measure, print tables and write files.

    Args:
        suite (Sequence[str]): Suites, or ``'all'``, which is all but ``'detection'``,
            ``'launches'``, ``'ways'`` and ``'compile'``.
        out (Sequence[str]): Files to write: all figures (.json), the growth as a
            picture.
        only (str): Regular expression: cases to measure, by name.
        batch_size (int, optional): In place of each case's own.
        config (Sequence[str], optional): Distillation configs of one pair, for the
            suite ``'step'``. Defaults to None, for ``STEP_CONFIGS``.
        image_size (int, optional): Pixels, in place of the first config's.
        cfg_options (Sequence[str], optional): Overrides of the configs.
        threads (int, optional): Threads of the CPU. Defaults to None, for torch's.
        **measuring: Other fields of :class:`Options`.

    Raises:
        FileNotFoundError: If a config is not there.
        OSError: If a file cannot be written.
        ValueError: If nothing is left to measure or to draw, an option has no effect
            on the suites, or the device cannot do what is asked for.
    """
    _refuse_unused(suite, config, cfg_options, image_size)
    check_outputs(True, out)
    # Models speak of their teachers.
    MMLogger.get_instance('benchmark', log_level='WARNING')
    start_message_hub('benchmark')
    options = Options(threads=threads or torch.get_num_threads(), **measuring)
    configs, overrides = config or STEP_CONFIGS, parse_cfg_options(cfg_options)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    makers = _makers(suite, configs, image_size, overrides)
    # What is asked for by its name alone has joined them.
    wanted = makers if 'all' in suite else suite
    chosen = choose({name: makers[name](options, batch_size) for name in wanted}, only)
    pictures = [path for path in out if not path.endswith('.json')]
    for path in pictures:
        check_picture_name(path, 'figures (.json) or ')
    if pictures and 'growth' not in chosen:
        raise ValueError(
            f'{", ".join(pictures)}: what is drawn is the suite growth, of which '
            '--suite and --only leave nothing.'
        )
    settings = dict(asdict(options), suite=list(suite), only=only)
    settings.update(batch_size=batch_size, image_size=image_size)
    # Without the paths in them.
    settings.update(config=list(map(osp.basename, configs)), cfg_options=overrides)
    report: dict = dict(machine=describe_machine(options), settings=settings)
    report['suites'] = {}
    print(format_machine(report))
    for name, cases in chosen.items():
        results = report['suites'][name] = []
        for number, case in enumerate(cases, 1):
            progress(f'{name}: {number} of {len(cases)}, {case.name}')
            results.append(measure(case, options))
            # After each, so that a run that is stopped leaves something behind.
            for path in set(out).difference(pictures):
                with whole_file(path) as part:
                    mmengine.dump(report, part, file_format='json', indent=2)
        print(f'\n{format_suite(name, results)}', flush=True)
        if name == 'growth':
            print(f'\n{format_growth(results)}', flush=True)
    for path in pictures:
        save_growth(report['suites']['growth'], path)


def _refuse_unused(suite: Sequence[str], *given: object) -> None:
    """Refuse options, in the order of ``_OF_SUITES``, that none of the suites takes."""
    for value, (option, takers) in zip(given, _OF_SUITES.items()):
        if value and not {'all', *takers}.intersection(suite):
            raise ValueError(
                f'{option} has no effect on --suite {" ".join(suite)}: it is for '
                f'{", ".join(takers)}. Leave it out, or choose one of these.'
            )


def _makers(
    suite: Sequence[str], configs: Sequence[str], height: int | None, overrides: dict
) -> dict[str, Callable[..., list[Case]]]:
    """What makes the cases of suites: of ``'all'``, and of others that are named."""
    makers: dict[str, Callable[..., list[Case]]] = dict(
        layers=layer_cases,
        limits=limit_cases,
        pyramid=pyramid_cases,
        step=partial(step_cases, configs, image_size=height, overrides=overrides),
        growth=growth_cases,
    )
    others: dict[str, Callable[..., list[Case]]] = dict(
        launches=partial(launch_cases, height=height),
        ways=way_cases,
        compile=compile_cases,
    )
    makers.update({name: others[name] for name in others if name in suite})
    if 'detection' in suite:
        # Classification needs no mmdet.
        from .detection import detection_cases

        makers['detection'] = partial(detection_cases, height=height)
    return makers


def choose(suites: dict[str, list[Case]], only: str) -> dict[str, list[Case]]:
    """Choose cases by their names.

    Args:
        suites (dict[str, list[Case]]): Suite -> its cases.
        only (str): Regular expression.

    Returns:
        dict[str, list[Case]]: Suite -> its cases that fit, of suites that have any.

    Raises:
        ValueError: If none fits, or the expression is none.
    """
    try:
        fitting = {
            name: [case for case in cases if re.search(only, case.name)]
            for name, cases in suites.items()
        }
    except re.error as error:
        raise ValueError(f'--only {only!r}: {error}') from error
    if not any(fitting.values()):
        names = '\n'.join(case.name for cases in suites.values() for case in cases)
        raise ValueError(f'--only {only!r} fits none of the cases:\n{names}')
    return {name: cases for name, cases in fitting.items() if cases}
