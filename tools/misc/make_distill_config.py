# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Write a distillation config for any two models of mmpretrain or mmdet."""

from __future__ import annotations

import argparse
import os
import os.path as osp
import re
import shlex
import sys
import tempfile
import warnings

# Before any config is read: it makes `mmfakd::` inheritance known.
import mmfakd  # noqa: F401 isort: skip

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

from mmfakd.utils.pairing import METHODS, Plan, make_pair, write_config
from mmfakd.utils.pairing.match_levels import Matching


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = "a config file, 'package::folder/config.py' or a model-zoo name"
    parser.add_argument('student', help=f'the model to be trained: {names}')
    parser.add_argument('teacher', help='the model that it learns from, likewise')
    parser.add_argument('-o', '--out', required=True, help='the config to write')
    parser.add_argument(
        '--method', choices=list(METHODS), default='fakd-review', help='what to use'
    )
    parser.add_argument(
        '--levels',
        default='auto',
        help="'auto', or layers from shallow to deep, separated by commas: "
        "'student_layer=teacher_layer', or one name for both; 'neck[1]' is the second "
        'map of a tuple',
    )
    parser.add_argument(
        '--input-size',
        type=parse_size,
        metavar='HxW',
        help="size of the images (default: as in the student's training pipeline)",
    )
    parser.add_argument(
        '--teacher-ckpt',
        help="the teacher's weights: path, URL or model-zoo name (default: those that "
        'its model zoo publishes)',
    )
    parser.add_argument(
        '--student-ckpt', help='weights that the student starts from, likewise'
    )
    parser.add_argument(
        '--inherit',
        nargs='?',
        const='auto',
        metavar='MODULES',
        help="modules of the student that start as copies of the teacher's, separated "
        'by commas; without names all behind the backbone that fit',
    )
    parser.add_argument(
        '--force', action='store_true', help='overwrite the config if it exists'
    )
    return parser.parse_args(args)


def parse_size(text: str) -> tuple[int, int]:
    """Read ``HxW`` (or one number for both).

    Args:
        text (str): What was given.

    Returns:
        tuple[int, int]: Height and width.

    Raises:
        argparse.ArgumentTypeError: If it is no size.
    """
    match = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no size; give height and width in pixels, as in 224x224.'
        )
    return int(match[1]), int(match[2] or match[1])


def format_command(options: argparse.Namespace) -> str:
    """Write the command that makes the config, wherever it is written to.

    Args:
        options (argparse.Namespace): The command line.

    Returns:
        str: The command.
    """
    words = ['tools/misc/make_distill_config.py', options.student, options.teacher]
    words += ['--method', options.method]
    if options.levels != 'auto':
        words += ['--levels', options.levels]
    if options.input_size is not None:
        words += ['--input-size', '{}x{}'.format(*options.input_size)]
    for name in ('teacher_ckpt', 'student_ckpt'):
        if getattr(options, name) is not None:
            words += [f'--{name.replace("_", "-")}', getattr(options, name)]
    if options.inherit is not None:
        words += ['--inherit', *([options.inherit] * (options.inherit != 'auto'))]
    return shlex.join(words)


def format_matching(plan: Plan, matching: Matching) -> str:
    """Draw the table of what is matched with what.

    Args:
        plan (Plan): The plan.
        matching (Matching): Its pairs.

    Returns:
        str: A line for each pair.
    """
    rows = [('student', 'channels', 'size', 'teacher', 'channels', 'size')]
    for ours, theirs in matching.pairs:
        rows.append(
            tuple(
                text
                for f in (ours, theirs)
                for text in (f.name, str(f.channels), '{}x{}'.format(*f.size))
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in rows
    )


def write_checked(text: str, path: str) -> int:
    """Write a config once its distiller has been built.

    Args:
        text (str): The config.
        path (str): Where it goes. Nothing is left there if it does not work.

    Returns:
        int: Number of weights of the distiller, which only training has.
    """
    folder = osp.dirname(osp.abspath(path))
    os.makedirs(folder, exist_ok=True)
    # In the same folder, as paths in it are relative.
    with tempfile.NamedTemporaryFile('w', suffix='.py', dir=folder) as file:
        file.write(text)
        file.flush()
        cfg = Config.fromfile(file.name)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        distiller = MODELS.build(cfg.model.distiller)
    with open(path, 'w') as file:
        file.write(text)
    return sum(p.numel() for p in distiller.parameters() if p.requires_grad)


def main(args: list[str] | None = None) -> None:
    """Examine the two models, write the config and say what is in it."""
    options = parse_args(args)
    if osp.exists(options.out) and not options.force:
        sys.exit(f'{options.out} exists; give --force to overwrite it.')
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('make_distill_config', log_level='ERROR')
    try:
        plan, matching, notes = make_pair(
            options.student,
            options.teacher,
            options.method,
            options.levels,
            options.input_size,
            format_command(options),
            options.teacher_ckpt,
            options.student_ckpt,
            options.inherit,
        )
    except (OSError, ModuleNotFoundError, ValueError) as error:
        sys.exit(f'make_distill_config: {error}')
    try:
        added = write_checked(write_config(plan, options.out), options.out)
    except Exception as error:
        sys.exit(f'make_distill_config: the config of this pair does not work: {error}')
    print(f'{plan.teacher.title} teaches {plan.student.title}: {matching.rule}.')
    print(format_matching(plan, matching))
    for note in notes:
        print(note)
    print(
        f'Training adds {added:,} weights to the {plan.student.parameters:,} of the '
        'student, and leaves none in it.'
    )
    print(f'Written: {options.out}. To train it:')
    print(f'  python tools/train.py {options.out}')


if __name__ == '__main__':
    main()
