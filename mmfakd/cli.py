# PYTHON_ARGCOMPLETE_OK
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The installed command ``mmfakd``, and all its options.

The parts that do the work are imported once it is known what is asked for, so that
help needs no torch. Each command's options are the arguments of the function in
``run``; what that returns is printed, called, or, a number, is the exit status.
"""

from __future__ import annotations

import argparse
import math
import os
import os.path as osp
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pickle import UnpicklingError
from pkgutil import resolve_name
from typing import Any

from mmfakd.messages import printable, progress
from mmfakd.model_zoo.shipped import config_names
from mmfakd.pairing.methods import DEFAULT_METHOD, METHODS
from mmfakd.version import __version__

CONFIG = "a config file, 'package::folder/config.py' or a name of the model zoos"
WEIGHTS = 'path, URL or model-zoo name'
# Commands that take a while before they have something to say.
SLOW = ('pair', 'layers', 'check', 'check-teacher', 'plot', 'detections', 'benchmark')
# Commands in which libraries speak of each other.
QUIET = ('pair', 'layers', 'check', 'detections')
# The exit status of a command of a shell that wrote to a pipe which was closed.
_UNREAD = 141
# What a user can mend; anything else is worth a traceback.
MISTAKES = (OSError, ImportError, UnpicklingError, ValueError)


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args (Sequence[str], optional): The command and its options. Defaults to those
            of the process.

    Raises:
        SystemExit: With the command's exit status; 141 if whoever reads its output has
            closed the pipe, as `head` does, and 1 with the reason if the output cannot
            be written otherwise, as on a full disk.
    """
    _open_streams()
    try:
        text = _run(sys.argv[1:] if args is None else list(args))
    except BrokenPipeError:
        # It may be another pipe, between processes. An output that does not buffer has
        # lost what it was given, and complains of what comes next.
        error = _finish_output('\n')
        if not isinstance(error, BrokenPipeError):
            raise
    except BaseException as end:
        # Help waits to be written. What has failed already is told instead, also where
        # that is of the same full disk, as of a training.
        error = _finish_output()
        done = isinstance(end, SystemExit) and not end.code
        if error is None or not done:
            raise
    else:
        error = _finish_output(text)
    if isinstance(error, BrokenPipeError):
        sys.exit(_UNREAD)
    if error is not None:
        sys.exit(f'mmfakd: the output cannot be written: {error}')


def _run(args: list[str]) -> str:
    """Run a command; gives what is to be printed at its end."""
    parser = make_parser()
    # Answers a shell that asks for completions.
    with suppress(ImportError):
        resolve_name('argcomplete:autocomplete')(parser)
    several = any(re.match('--nproc(=|$)', arg) for arg in args)
    if several and args[0] in ('train', 'test'):
        _start_processes(parser, args)
    settings = vars(parser.parse_args(args))
    settings.pop('action', None)
    command, run = settings.pop('command'), settings.pop('run')
    if 'output' in settings:
        output = settings.pop('output')
        if output is not None and settings['out'] is not None:
            parser.error(
                f'{command}: two files to write, {output} and {settings["out"]}; give '
                'one, -o FILE'
            )
        settings['out'] = settings['out'] or output
        if settings.pop('out_is_needed') and settings['out'] is None:
            parser.error(f'{command}: give the file to write, -o FILE')
    if command == 'pair':
        settings['command'] = ['mmfakd', *args]
    # mmcv has no such operators without a compiler; a model that needs them says so.
    warnings.filterwarnings(
        'ignore', 'Fail to import ``MultiScaleDeformableAttention``'
    )
    if command in QUIET:
        warnings.filterwarnings('ignore')
    if command in SLOW:
        progress('Loading libraries')
    try:
        result = resolve_name(f'mmfakd.{run}')(**settings)
    except BrokenPipeError:
        raise
    except MISTAKES as error:
        sys.exit(printable(f'mmfakd {command}: {error}'))
    except KeyError as error:
        # A name that is not known is told in a sentence; a bare key is a fault of ours.
        if ' ' not in str(error.args[0]):
            raise
        sys.exit(printable(f'mmfakd {command}: {error.args[0]}'))
    except TypeError as error:
        # A config's argument that its class does not take, as registries tell it.
        if not str(error).startswith(('type=', 'class `')):
            raise
        sys.exit(printable(f'mmfakd {command}: {error}'))
    if callable(result):
        # A training or test, whose errors deserve a traceback.
        result()
    elif isinstance(result, int):
        sys.exit(result)
    elif result is not None:
        return f'{printable(result)}\n'
    return ''


def _open_streams() -> None:
    """Let streams that a shell has closed, by `>&-`, lead nowhere: libraries print."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115


def _finish_output(more: str = '') -> OSError | None:
    """Write what waits, and more, or say why not. Then nothing waits any longer."""
    # The command may have closed it; what a notebook has may not say so.
    if getattr(sys.stdout, 'closed', False):
        return None
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except OSError as error:
        # Python would try again at its end, and complain.
        _discard_output()
        return error
    return None


def _discard_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _start_processes(parser: argparse.ArgumentParser, args: list[str]) -> None:
    """Start several processes. A wrong option is told once, not by each of them."""
    from mmfakd.engine.processes import check_processes, split_options, start_processes

    own, launcher = split_options(args)
    other = parser.parse_args(own).launcher
    if other in ('slurm', 'mpi'):
        parser.error(
            f'{args[0]}: --nproc and --launcher {other}: each starts the processes in '
            'its own way; give one of them'
        )
    try:
        check_processes(launcher)
    except ValueError as error:
        parser.error(f'{args[0]}: {error}')
    start_processes(args)


def front(command: str) -> None:
    """Run a command of which a script is the front.

    Args:
        command (str): The command; its options are those of the process.
    """
    main([command, *sys.argv[1:]])


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands.

    Returns:
        argparse.ArgumentParser: The parser.
    """
    parser = argparse.ArgumentParser(
        prog='mmfakd',
        description='Frequency-domain knowledge distillation.',
        allow_abbrev=False,
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, (add_options, run) in COMMANDS.items():
        text = str(add_options.__doc__)
        command = commands.add_parser(
            name,
            help=text.splitlines()[0].rstrip('.'),
            description=re.sub('^    ', '', text, flags=re.MULTILINE),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Some options are looked for before they are parsed.
            allow_abbrev=False,
        )
        command.set_defaults(command=name, run=run)
        add_options(command)
    return parser


def _train(parser: argparse.ArgumentParser) -> None:
    """Train a model, in general a student under a teacher.

    --nproc 8 trains in eight processes of this machine, on a GPU each where there are
    any. Options that are torchrun's go to it: --nnodes, --node-rank, --master-addr,
    --master-port, --max-restarts and so on.
    """
    add = parser.add_argument
    _config(parser)
    resumed = 'a checkpoint to go on from; without one the last of the work dir'
    add('--resume', nargs='?', const='auto', help=resumed)
    add('--amp', action='store_true', help='train with automatic mixed precision')
    add('--no-validate', action='store_true', help='do not evaluate while training')
    scaled = 'scale the learning rate by the batch size of all processes'
    add('--auto-scale-lr', action='store_true', help=scaled)
    rate = 'learning rate; with --resume the schedule goes on in proportion to it'
    add('--lr', type=float, help=rate)
    changed = 'resume although teacher, distiller or optimizer are others than before'
    add('--allow-changes', action='store_true', help=changed)
    _teacher_ckpt(parser)
    add('--student-ckpt', help='weights that the student starts from, likewise')
    add('--seed', type=int, help='random seed')
    _launch(parser)


def _test(parser: argparse.ArgumentParser) -> None:
    """Evaluate a checkpoint: of a distillation (its student), or of a plain model.

    A student is evaluated without the teacher's weights; a plain student file that
    training wrote beside a checkpoint is accepted with the distillation config, too.
    --nproc N evaluates in several processes, as in `mmfakd train`.
    """
    add = parser.add_argument
    _config(parser)
    add('checkpoint', help=f'checkpoint: {WEIGHTS}')
    kinds = 'file for the results: predictions (.pkl) or metrics (.json, .yml, .pkl)'
    _out(parser, kinds, required=False)
    add('--out-item', choices=['metrics', 'pred'], help='what --out holds (pred)')
    add('--amp', action='store_true', help='evaluate with automatic mixed precision')
    add('--show-dir', type=_path, help='folder for pictures of the predictions')
    add('--show', action='store_true', help='show the predictions in a window')
    tta = 'average over augmented images: of `tta_pipeline`, or mirrored ones'
    add('--tta', action='store_true', help=tta)
    _launch(parser)


def _pair(parser: argparse.ArgumentParser) -> None:
    """Write a distillation config for two models of mmpretrain, mmdet or mmseg.

    --levels takes layers from shallow to deep, separated by commas:
    'student_layer=teacher_layer', or one name for both; 'neck[1]' is the second map of
    a tuple.

    --inherit names modules of the student that start as copies of the teacher's,
    separated by commas; without names all behind the backbone that fit.

    --loss-weight is a number, which multiplies the weight of the method's recipe; one
    for each level, 1,1,0.5; or 'balance', weights that the first iterations find by
    measurement: 'balance:ratio=0.5,iters=50'.
    """
    add = parser.add_argument
    add('student', help=f'the model to be trained: {CONFIG}')
    add('teacher', help='the model that it learns from, likewise')
    _out(parser, 'the config to write')
    default = f'default: {DEFAULT_METHOD}'
    add('--method', choices=list(METHODS), default=DEFAULT_METHOD, help=default)
    add('--levels', default='auto', help="'auto', or names as described above")
    weight = 'weight of the distillation, as described above'
    add('--loss-weight', metavar='WEIGHT', help=weight)
    grows = 'epochs (of an iteration based loop iterations) over which the weight grows'
    add('--warmup', type=_positive, help=grows)
    _input_size(parser)
    _teacher_ckpt(parser, ' (default: those that its model zoo publishes)')
    add('--student-ckpt', help='weights that the student starts from, likewise')
    add('--inherit', nargs='?', const='auto', metavar='MODULES', help='see above')
    _force(parser)


def _layers(parser: argparse.ArgumentParser) -> None:
    """List the layers of a model that can be recorded, and what they yield."""
    _config(parser)
    _input_size(parser)
    nested = 'only layers that are called within fewer than this many others'
    parser.add_argument('--depth', type=_positive, help=nested)


def _check(parser: argparse.ArgumentParser) -> None:
    """Say whether a distillation teaches, from one batch and without training.

    One step is computed on a batch of the config's own training pipeline. For each
    distillation loss the report lists layers, shapes, its weighted value, the norm of
    its gradient on the student over that of the student's own loss, and how many of
    the student's weights it reaches. Nothing is trained and nothing is written.

    Exit status: 0 if nothing is wrong; 3 for warnings: losses out of proportion, input
    that is not normalised as it should be, classes that are never seen, a teacher at
    random; 1 for an error: a level that reaches nothing of the student, a teacher that
    has nothing to say, data that cannot be trained on, or a config that does not run; 2
    for a wrong command line.
    """
    add = parser.add_argument
    _config(parser)
    _teacher_ckpt(parser)
    add('--student-ckpt', help='weights that the student starts from, likewise')
    add('--device', help='cpu, cuda:0 or other (default: a GPU where there is one)')
    add('--amp', action='store_true', help='with automatic mixed precision')
    _cfg_options(parser)


def _check_teacher(parser: argparse.ArgumentParser) -> None:
    """Score the teacher of a distillation, before days of training rely on it.

    The teacher is evaluated on the config's own validation set, by its own evaluator
    and with the input that it gets in distillation: the student's batch, re-normalised.
    Its score is compared with the one that a metafile lists, or with --expected.

    Exit status: 0 if the score fits, if there is none to compare with, or if the
    teacher tells other classes apart than the validation set has; 3 if the score is
    lower than it should be by more than --tolerance, the teacher predicts nothing, or
    the evaluator gives none of the scores that a metafile lists; 1 for an error, such
    as a teacher without weights; 2 for a wrong command line.
    """
    add = parser.add_argument
    _config(parser)
    _teacher_ckpt(parser)
    known = "known top-1 accuracy or box AP in %%, in place of the metafile's"
    add('--expected', type=float, help=known)
    lower = 'percentage points that the score may be lower (default: %(default)s)'
    add('--tolerance', type=float, default=1.0, help=lower)
    add(
        '--work-dir',
        type=_path,
        help='folder for the log (default: work_dirs/CONFIG_teacher)',
    )
    _cfg_options(parser)


def _export(parser: argparse.ArgumentParser) -> None:
    """Take the student out of a distillation checkpoint.

    A .pth file is a checkpoint of stock mmpretrain, mmdet or mmseg, a .safetensors file
    the same in a format that cannot hold code. An .onnx or TorchScript file holds the
    network, too, from normalised images to the outputs of its head, and needs none of
    these libraries. Before it takes its name its outputs are compared with PyTorch's on
    a picture. It says itself how images are prepared and which sizes may vary.
    """
    add = parser.add_argument
    add('checkpoint', help='distillation checkpoint: path, URL or model-zoo name')
    _out(parser, 'file to write, for example student.pth', positional=True)
    add(
        '--config-out',
        type=_path,
        help="also write the stock student's config to this .py file",
    )
    ending = 'of the file (default: by its ending)'
    formats = ['pth', 'safetensors', 'onnx', 'torchscript']
    add('--format', dest='file_format', choices=formats, help=ending)
    _force(parser)
    network = parser.add_argument_group('onnx and torchscript')
    add = network.add_argument
    given = "the student's config, if the checkpoint holds none: "
    which: Any = add('--config', help=f'{given}{CONFIG}')
    which.completer = lambda **_: config_names()
    add('--image', help='picture to compare outputs on (default: a photograph)')
    _input_size(network, 'as in the test pipeline')
    vary = 'sizes that may vary: of classifiers the batch (auto), else height and width'
    dynamic = ['auto', 'none', 'batch', 'size']
    add('--dynamic', choices=dynamic, default='auto', help=vary)
    add(
        '--opset', type=_positive, help='version of the operators of ONNX (default: 17)'
    )


def _convert(parser: argparse.ArgumentParser) -> None:
    """Turn a checkpoint of the mdistiller zoo into one of an mmpretrain classifier."""
    add = parser.add_argument
    add('source', help='path or URL of the checkpoint')
    _out(parser, 'file to write, for example resnet56.pth', positional=True)
    add('--arch', help="the zoo's name of the network; found out if not given")
    add('--num-classes', type=int, help='number of classes that the file must have')
    _force(parser)


def _compare(parser: argparse.ArgumentParser) -> None:
    """Put trainings side by side: a Markdown table, figures as JSON, curves.

    mmfakd compare alone='work_dirs/r18w4_seed*' fam='work_dirs/fam_seed*' -o curves.pdf

    Runs of one method differ in their seed; runs of different methods are paired by it.
    Runs without a name are grouped by that of their config.
    """
    add = parser.add_argument
    runs = 'a method and its work dirs, one for each seed, or a glob in quotes'
    add('runs', nargs='*', metavar='[NAME=]DIR[,DIR...]', help=runs)
    add('--metric', help='score, higher is better; found by itself if common')
    add('--baseline', help='method to compare with; default: the first')
    add('--teacher', help="the teacher's work dir, for reference")
    figures = 'an earlier comparison: these runs are added; without any it is shown'
    add('--add-to', type=_path, metavar='FILE.json', help=figures)
    _trust(parser)
    _outs(parser, 'curves (.png, .pdf, .svg), figures (.json), the table (.md)')


def _plot(parser: argparse.ArgumentParser) -> None:
    """Draw what a distillation has learned.

    mmfakd plot WORK_DIR [-o page.html]
    mmfakd plot CONFIG CHECKPOINT -o picture.png

    Of a work dir it is a page with captions: ratio of gradients, filters, spectra, gap
    by band, attention, and their courses where LearningPicturesHook has recorded them.
    Of a config and a checkpoint it is one picture. Upper row: magnitude of the filter
    of each level, mean over its channels, the mean (DC) in the middle. Lower row:
    amplitude spectra over the frequency's radius of the teacher's features, the
    student's, and the predictions, before training and after.
    """
    add = parser.add_argument
    which: Any = add('config', help=f'a work dir, or {CONFIG}')
    which.completer = lambda **_: config_names()
    newest = 'checkpoint of that run (default of a work dir: its newest)'
    add('checkpoint', nargs='?', help=newest)
    kinds = 'what to write: a page (.html), or a picture (.png, .pdf, .svg)'
    _out(parser, kinds, required=False, positional=True)
    _teacher_ckpt(parser)
    add('--batches', type=_positive, default=1, help='validation batches')
    _trust(parser)


def _detections(parser: argparse.ArgumentParser) -> None:
    """Draw what teacher and student detect, side by side on the same image.

    Each picture has the ground truth (where the image is one of the validation set),
    the teacher's and the student's detections, drawn by mmdet's own visualizer. Both
    models get what they get in training: the student's batch, for the teacher
    re-normalised. The checkpoint is one of the distillation, or an exported student.
    """
    add = parser.add_argument
    _config(parser)
    add('student', help="the student's checkpoint")
    _teacher_ckpt(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--images', nargs='+', metavar='PATH', help='files or folders')
    some = 'how many of the validation set, at equal distances (default: %(default)s)'
    source.add_argument('--num', type=_positive, default=8, help=some)
    score = 'score above which detections are drawn (default: %(default)s)'
    add('--score-thr', type=float, default=0.3, help=score)
    folder = 'folder for the pictures (default: %(default)s)'
    default = 'work_dirs/detections'
    add('-o', '--out', '--out-dir', type=_path, default=default, help=folder)
    add('--device', help='cpu, cuda:0 or other (default: a GPU where there is one)')
    _cfg_options(parser)


def _benchmark(parser: argparse.ArgumentParser) -> None:
    """Measure time, peak memory and parameters.

    layers     each layer against a naive version of the published equations
    limits     each layer against what its parts take alone, as plain operations
    pyramid    the connectors of FAM-KD, of ReviewKD, and of naive layers
    step       whole training steps against the student's with the teacher's forward
               pass
    growth     a level of FAM-KD and of ReviewKD, by image size, channels and batch
    detection  the connectors of Faster R-CNN R101-R50 at 800 x 1333, against each
               other and against its training step; takes long
    launches   operations of steps of R56-R20 and the connectors of a detector by part,
               and the bytes they move; on the GPU's path, too, without a GPU
    ways       each layer in the way that measurement chooses, against the usual one
    compile    training steps as compilers make them; takes minutes

    "all" is all but the last four.

    What is compared takes turns in one run. The other sides are relative to the first.
    """
    add = parser.add_argument
    suites = ['layers', 'limits', 'pyramid', 'step', 'growth']
    suites += ['detection', 'launches', 'ways', 'compile', 'all']
    add('--suite', nargs='+', choices=suites, default=['all'])
    add('--device', choices=['cpu', 'cuda'], default='cpu')
    add('--threads', type=_positive, help="threads of the CPU; default: torch's")
    add('--rounds', type=_positive, default=11, help='turns of each side')
    add('--min-time', type=_seconds, default=0.2, help='seconds that a turn lasts')
    add('--amp', choices=['none', 'float16', 'bfloat16'], default='none')
    batch = "in place of each case's own; of growth, the middle one"
    add('--batch-size', type=_positive, help=batch)
    add('--only', default='', help='regular expression: cases to measure, by name')
    step = parser.add_argument_group('suite step')
    pair = 'distillation configs of one pair; default: R56-R20, FAM-KD and ReviewKD'
    step.add_argument('--config', nargs='+', help=pair)
    pixels = "in place of the first config's; of detection, the height"
    step.add_argument('--image-size', type=_positive, help=pixels)
    _cfg_options(step)
    _outs(parser, 'all figures (.json), the growth as a picture (.png, .pdf, .svg)')


def _configs(parser: argparse.ArgumentParser) -> None:
    """List, copy or show the configs that come with mmfakd."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    names = 'names, all or those that fit a pattern'
    listing = actions.add_parser('list', help=names, allow_abbrev=False)
    listing.add_argument('pattern', nargs='?', default='*', help="such as '*r56*'")
    listing.set_defaults(run='model_zoo.shipped:list_configs')
    whole = 'write a config with all that it inherits into one file'
    copying = actions.add_parser('copy', help=whole, allow_abbrev=False)
    _config(copying)
    _out(copying, 'file to write', required=False)
    _force(copying)
    copying.set_defaults(run='model_zoo.shipped:copy_config')
    showing = actions.add_parser(
        'show', help='print what a copy would hold', allow_abbrev=False
    )
    _config(showing)
    showing.set_defaults(run='model_zoo.shipped:show_config')


def _zoo(parser: argparse.ArgumentParser) -> None:
    """List measured models, and get published weights.

    Those that come with the package need no network. Their names also stand for files
    wherever a checkpoint is asked for: `mmfakd train CONFIG --teacher-ckpt NAME`.
    """
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    scores = 'scores, all or those of a pattern'
    listing = actions.add_parser('list', help=scores, allow_abbrev=False)
    listing.add_argument('pattern', nargs='?', default='*', help="such as '*digits*'")
    listing.set_defaults(run='model_zoo.published:list_published')
    whole = 'write weights, and the config of their model, into a folder'
    getting = actions.add_parser('get', help=whole, allow_abbrev=False)
    getting.add_argument('name', help='as the list has it')
    folder = 'folder for the two files (default: this one)'
    getting.add_argument(
        '-o', '--out', type=_path, default='.', metavar='DIR', help=folder
    )
    _force(getting)
    getting.set_defaults(run='checkpoints.published_file:get_published')


def _env(parser: argparse.ArgumentParser) -> None:
    """Print what an issue report needs: versions, GPU, what the gates say."""


COMMANDS = {
    'train': (_train, 'engine.launch:train'),
    'test': (_test, 'engine.launch:test'),
    'pair': (_pair, 'pairing.command:write_pair'),
    'layers': (_layers, 'pairing.layer_table:layer_table'),
    'check': (_check, 'analysis.first_step_check:check_distillation'),
    'check-teacher': (_check_teacher, 'analysis.teacher_score:check_teacher'),
    'export': (_export, 'export.command:export_checkpoint'),
    'convert': (_convert, 'checkpoints.mdistiller_file:convert_file'),
    'compare': (_compare, 'analysis.compare_work_dirs:compare_work_dirs'),
    'plot': (_plot, 'analysis.learning_page:plot'),
    'detections': (_detections, 'analysis.detections:draw_detections'),
    'benchmark': (_benchmark, 'analysis.benchmark.run:run_benchmark'),
    'configs': (_configs, ''),
    'zoo': (_zoo, ''),
    'env': (_env, 'compat.environment:describe_environment'),
}


def _config(parser: argparse.ArgumentParser) -> None:
    config: Any = parser.add_argument('config', help=CONFIG)
    config.completer = lambda **_: config_names()


def _teacher_ckpt(parser: argparse.ArgumentParser, default: str = '') -> None:
    parser.add_argument(
        '--teacher-ckpt', help=f"the teacher's weights: {WEIGHTS}{default}"
    )


def _trust(parser: argparse.ArgumentParser) -> None:
    own = (
        "configs in work dirs may import modules and name any class: they are one's own"
    )
    parser.add_argument('--trust', action='store_true', help=own)


def _cfg_options(parser: Any) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config: key=value, key="[a,(b,c)]", '
        'key=\'[dict(type="Name", x=1)]\', with a comma key=\'"a, b.pth"\'',
    )


def _launch(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--work-dir', type=_path, help='folder for logs and what is written')
    _cfg_options(parser)
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    add('--launcher', choices=launchers, default='none', help='job launcher')
    add(
        '--nproc',
        metavar='N',
        default=argparse.SUPPRESS,
        help='number of processes to start on this machine',
    )
    # torch 2's launcher sends `--local-rank`, older ones `--local_rank`.
    add('--local_rank', '--local-rank', type=int, default=0)


def _input_size(parser: Any, default: str = 'as in the training pipeline') -> None:
    parser.add_argument(
        '--input-size',
        type=parse_size,
        metavar='HxW',
        help=f'size of the images (default: {default})',
    )


def _force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--force', action='store_true', help='overwrite files that exist'
    )


def _out(
    parser: argparse.ArgumentParser,
    text: str,
    required: bool = True,
    positional: bool = False,
) -> None:
    """``-o``, which some scripts took as their last argument."""
    add = parser.add_argument
    if positional:
        add('output', nargs='?', type=_path, help=argparse.SUPPRESS)
        parser.set_defaults(out_is_needed=required)
    add('-o', '--out', type=_path, required=required and not positional, help=text)


def _outs(parser: argparse.ArgumentParser, text: str) -> None:
    """``-o`` for several files, and names that scripts gave it."""
    parser.add_argument(
        '-o',
        '--out',
        '--json',
        '--plot',
        type=_path,
        action='append',
        default=[],
        metavar='FILE',
        help=f'file to write, by its ending: {text}; may be given several times',
    )


def _path(text: str) -> str:
    """What is written to; no shell puts a home in place of ``~`` behind ``=``."""
    return osp.expanduser(text)


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


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text}: expected a positive number')
    return int(text)


def _seconds(text: str) -> float:
    # Whoever waits for NaN seconds waits for ever.
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f'{text}: expected seconds, 0 or more')
    return seconds
