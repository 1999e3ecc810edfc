# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Kill trainings, resume them, and see whether anything is lost.

python tests/helpers/killing.py                         # every case, 40 kills each
python tests/helpers/killing.py keep1 ema --kills 8
python tests/helpers/killing.py --config my.py --of '[.]pth|last_checkpoint'
python tests/helpers/killing.py keep1 --outside 20      # kill -9 at random times

A training runs to its end, and its operations on files of the work dir are counted
(`kill_at.c`, compiled by gcc). Others are killed at evenly spread ones, and resumed
by `mmfakd train CONFIG --work-dir DIR --resume` until they end; every fifth is killed
once more on the way. Each has to end as the first: its losses, scores, checkpoints,
student files and random states, to the last digit and bit.

Trainings are forked from this process, which has loaded all libraries. It has one
thread; a config needs a fixed seed and a log at every iteration.
"""

import argparse
import ctypes
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name('kill_at.c')
DIGITS = REPOSITORY / 'configs/fakd/digits/fakd_review_r18w32_r18w4_1xb50_digits.py'
CELLS = REPOSITORY / 'configs/fakd/bccd/fakd_review_gfl_r18_r18w16_1xb8_bccd.py'
BCCD = REPOSITORY.parent / 'shared/data/bccd'
LIBRARY = 'KILLING_LIBRARY'
# What a checkpoint says of its run that a validation run anew, after a kill within
# it, or the time tells otherwise.
UNTOLD = ('cfg', 'experiment_name', 'loop_stage', 'eta', 'iter', 'outdated_ckpts')
LOADED = (
    'mmfakd.models',
    'mmfakd.engine.launch',
    'mmfakd.analysis.compare_work_dirs',
    'mmrazor.models',
)


def use_library():
    """Start this program anew, with the library that counts and kills."""
    if LIBRARY in os.environ:
        return ctypes.CDLL(os.environ[LIBRARY])
    path = compile_library(Path(mkdtemp(prefix='killing_')))
    environment = dict(os.environ, OMP_NUM_THREADS='1', LD_PRELOAD=str(path))
    environment.update({LIBRARY: str(path), 'PYTHONPATH': str(REPOSITORY)})
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def compile_library(folder):
    """Compile what counts and kills.

    Returns:
        The path of the library.
    """
    path = folder / 'kill_at.so'
    command = ['gcc', '-shared', '-fPIC', '-O2', SOURCE, '-o', path, '-ldl']
    subprocess.run(command, check=True)
    return path


# ---------------------------------------------------------------------------- cases


def digits(epochs=3, **checkpoint):
    """Epochs of five iterations, with a validation behind each."""
    from mmengine.config import Config

    cfg = Config.fromfile(DIGITS)
    cfg.train_dataloader.update(batch_size=10)
    cfg.train_dataloader.dataset.times = 1
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.batch_size, loader.dataset.indices = 100, 100
    cfg.train_cfg.max_epochs = epochs
    cfg.param_scheduler.milestones = [1]
    cfg.model.distiller.warmup.end = 2
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.window_size = 1
    cfg.default_hooks.checkpoint.update(dict(dict(save_best='auto'), **checkpoint))
    return cfg


def random_inputs(cfg):
    """Draw random numbers in the main process, too."""
    mixup = dict(type='Mixup', alpha=0.8)
    cfg.data_preprocessor.batch_augments = dict(augments=mixup)
    cfg.model.architecture.head.loss.use_soft = True
    return cfg


def ema():
    cfg = digits(max_keep_ckpts=2)
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1)]
    # Means over several iterations go on, too.
    cfg.log_processor.window_size = 4
    return cfg


def inside(workers=0, accumulate=1, interval=2, **checkpoint):
    """Checkpoints within epochs."""
    cfg = random_inputs(digits(by_epoch=False, interval=interval, **checkpoint))
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
    cfg.optim_wrapper.accumulative_counts = accumulate
    return cfg


def together():
    """The shortest training with most of it."""
    cfg = inside(accumulate=2, max_keep_ckpts=1)
    cfg.train_cfg.max_epochs = 2
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1)]
    return cfg


def iterations():
    """A training without epochs, which also publishes its last checkpoint."""
    cfg = random_inputs(
        digits(by_epoch=False, interval=3, published_keys=['meta', 'state_dict'])
    )
    cfg.train_cfg = dict(by_epoch=False, max_iters=13, val_interval=4)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.param_scheduler.update(by_epoch=False, milestones=[5, 9])
    cfg.model.distiller.warmup.by_epoch = False
    cfg.log_processor.by_epoch = False
    cfg.default_hooks.epoch_seed = None
    return cfg


def detector():
    from mmengine.config import Config

    cfg = Config.fromfile(CELLS)
    small = dict(type='Resize', scale=(96, 72), keep_ratio=True)
    for loader, number in ((cfg.train_dataloader, 12), (cfg.val_dataloader, 4)):
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=f'{BCCD}/', indices=number)
    cfg.train_dataloader.dataset.pipeline[2].update(scale=(96, 72))
    cfg.val_dataloader.dataset.pipeline[1] = small
    cfg.val_evaluator.ann_file = f'{BCCD}/annotations/test.json'
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.train_cfg.update(max_epochs=2, val_interval=1)
    # Random weights detect something, too.
    cfg.model.architecture.test_cfg.score_thr = 0.0
    cfg.default_hooks.checkpoint.save_best = 'auto'
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.window_size = 1
    return cfg


CASES = dict(
    keep1=lambda: digits(max_keep_ckpts=1),
    keep3=lambda: digits(epochs=5, max_keep_ckpts=3),
    ema=ema,
    accumulate=lambda: inside(accumulate=3, max_keep_ckpts=2),
    inside=lambda: inside(max_keep_ckpts=1, published_keys=['state_dict']),
    workers=lambda: inside(workers=2, accumulate=2, interval=3, max_keep_ckpts=1),
    iterations=iterations,
    detector=detector,
    together=together,
)


def write_config(cfg, folder):
    """Write a config whose teacher has random weights.

    Returns:
        Its path.
    """
    import torch
    from mmengine.registry import MODELS, init_default_scope

    if cfg.model.get('teacher') and not Path(str(cfg.model.teacher_ckpt)).is_file():
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        teacher = MODELS.build(cfg.model.teacher)
        torch.save(teacher.state_dict(), folder / 'teacher.pth')
        cfg.model.teacher_ckpt = str(folder / 'teacher.pth')
    cfg.dump(folder / 'config.py')
    return folder / 'config.py'


# ------------------------------------------------------------------------ processes


class Commands:
    """Starts `mmfakd` in processes forked from this one."""

    def __init__(self, library):
        # What they need is loaded once.
        for name in LOADED:
            import_module(name)
        # The layout of configs in logs and checkpoints takes half of the time.
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            import_module(module).FormatCode = lambda text, **_: (text, 1)
        self.library, self.main = library, import_module('mmfakd.cli').main

    def load_scope(self, scope):
        """Load the library of a config, and set apart what is there before a fork."""
        import_module(f'{scope}.apis')
        gc.freeze()

    def start(self, *arguments, output, folder='/', kill=0, log=''):
        """Start a command.

        Args:
            *arguments: Its arguments.
            output (Path): File that gets what it prints, at its end.
            folder (Path): Folder whose operations are counted.
            kill (int): Number of the operation at which it is killed, 0 for none.
            log (Path): File for the operations.

        Returns:
            The process.
        """
        sys.stdout.flush(), sys.stderr.flush()
        number = os.fork()
        if number == 0:
            self._run(arguments, output, folder, kill, log)
        return number

    def _run(self, arguments, output, folder, kill, log):
        status = 1
        try:
            os.setsid()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            file = os.open(output, flags, 0o644)
            os.dup2(file, 1), os.dup2(file, 2)
            if kill or log:
                paths = [os.fsencode(os.path.realpath(p)) for p in (folder, log)]
                if not log:
                    paths[1] = None
                self.library.kill_at(paths[0], ctypes.c_long(kill), paths[1])
            try:
                self.main([str(argument) for argument in arguments])
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else bool(error.code)
                print(error.code or '', file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(int(status))

    def run(self, *arguments, **options):
        """Start a command and wait for it.

        Returns:
            Its exit status, negative for a signal.
        """
        return wait(self.start(*arguments, **options))


def wait(number, limit=300):
    """Wait for a process, and kill it when it takes too long.

    Returns:
        Its exit status, negative for a signal.
    """
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return 'hangs'


def next_second():
    """Wait until logs, which are named by the second, get a folder of their own."""
    time.sleep(1.01 - time.time() % 1)


# ----------------------------------------------------------------------- comparison


def differences(expected, actual):
    """Compare a training that was interrupted with one that was not.

    Args:
        expected (Path): Work dir of the one that was not.
        actual (Path): Work dir of the other.

    Returns:
        What differs, a line each.
    """
    found = []
    for kind, ours, theirs in zip(
        ('iteration', 'validation'), read_logs(expected), read_logs(actual)
    ):
        for step in sorted(ours.keys() | theirs.keys()):
            found += unequal(f'{kind} {step}', ours.get(step), theirs.get(step))
    names = [file_names(folder) for folder in (expected, actual)]
    found += unequal('files', *({name: '' for name in own} for own in names))
    for name in sorted(names[0].keys() & names[1].keys()):
        files = [folder / own[name] for folder, own in zip((expected, actual), names)]
        if name.endswith('.pth'):
            try:
                ours, theirs = map(read_checkpoint, files)
            except Exception as error:
                found.append(f'{name}: {error}')
            else:
                found += unequal(name, ours, theirs)
        elif name == 'last_checkpoint':
            found += unequal(name, *(Path(f.read_text()).name for f in files))
    return found


def read_logs(work_dir):
    """Read what a training has logged; where runs overlap, the later counts.

    Returns:
        For iterations and validations: number -> name -> value.
    """
    logs = ({}, {})
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            try:
                scalars = json.loads(line)
            except ValueError:
                # Cut short by the kill.
                continue
            kept = {k: v for k, v in scalars.items() if not re.search('time|mem', k)}
            logs['lr' not in kept][kept['step']] = kept
    return logs


def file_names(work_dir):
    """List what a training leaves, beside logs and configs.

    Returns:
        Name -> actual name, which in published checkpoints has a checksum.
    """
    names = [path.name for path in work_dir.iterdir()]
    names = [n for n in names if not re.fullmatch(r'[0-9]{8}_[0-9]{6}|.*[.]py', n)]
    return {re.sub('-[0-9a-f]{8}[.]', '-CHECKSUM.', name): name for name in names}


def read_checkpoint(path):
    """Read what does not depend on time and place.

    Returns:
        The content of the checkpoint.
    """
    from mmfakd.compat import load_checkpoint_file

    checkpoint = load_checkpoint_file(path)
    for part in ('position', 'meta'):
        for key in ('time', 'cfg', 'experiment_name'):
            checkpoint.get(part, {}).pop(key, None)
    checkpoint.get('meta', {}).get('mmfakd', {}).pop('teacher', None)
    hub = checkpoint.pop('message_hub', {})
    checkpoint['log'] = {
        name: buffer.data
        for name, buffer in hub.get('log_scalars', {}).items()
        if not re.search('time|mem', name)
    }
    checkpoint['info'] = {
        name: Path(value).name if isinstance(value, str) else value
        for name, value in hub.get('runtime_info', {}).items()
        if name not in UNTOLD
    }
    return checkpoint


def unequal(where, ours, theirs):
    """Compare two values, tensors, or dicts and lists of such.

    Returns:
        What differs, a line each; of many the first three.
    """
    import numpy as np
    import torch

    if isinstance(ours, (torch.Tensor, np.ndarray)):
        same = type(ours) is type(theirs) and ours.shape == theirs.shape
        if same and np.array_equal(np.asarray(ours), np.asarray(theirs)):
            return []
        return [f'{where}: tensors differ']
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lines = [f'{where}: no {k}' for k in ours.keys() - theirs.keys()]
        lines += [f'{where}: has {k}' for k in theirs.keys() - ours.keys()]
        for key in ours.keys() & theirs.keys():
            lines += unequal(f'{where}, {key}', ours[key], theirs[key])
        return lines if len(lines) < 4 else [*lines[:3], f'{where}: ...']
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        return unequal(where, dict(enumerate(ours)), dict(enumerate(theirs)))
    if ours == theirs or (ours != ours and theirs != theirs):
        return []
    return [f'{where}: {ours} became {theirs}']


# ---------------------------------------------------------------------------- trials


class Trial:
    """One config: the training that is left alone, and those that are killed."""

    def __init__(self, commands, config, folder, keep=False):
        self.commands, self.config, self.folder = commands, config, folder
        self.keep = keep
        self.whole = folder / 'left alone'
        self.operations, self.duration = [], 0.0

    def prepare(self):
        """Train without interruption, and list the operations."""
        begin, log = time.monotonic(), self.folder / 'operations.txt'
        status = self.train(self.whole, log=log)
        self.duration = time.monotonic() - begin
        if status != 0:
            sys.exit(
                f'{self.config} does not train: {status}\n{self.output(self.whole)}'
            )
        self.operations = log.read_text().splitlines()

    def train(self, work_dir, *options, **kill):
        """Train in a work dir.

        Returns:
            The exit status.
        """
        return wait(self.start(work_dir, *options, **kill))

    def start(self, work_dir, *options, **kill):
        if work_dir.exists():
            next_second()
        command = ['train', self.config, '--work-dir', work_dir, *options]
        output = work_dir.with_suffix('.txt')
        return self.commands.start(*command, output=output, folder=work_dir, **kill)

    def output(self, work_dir, lines=12):
        """The last lines of what trainings in a work dir have printed."""
        text = work_dir.with_suffix('.txt').read_text(errors='replace')
        return '\n'.join(f'    | {line}' for line in text.splitlines()[-lines:])

    def spread(self, kills, of=''):
        """Choose operations, evenly spread over those that match."""
        numbers = [
            number
            for number, line in enumerate(self.operations, 1)
            if re.search(of, line.replace(str(self.folder), ''))
        ]
        kills = min(kills, len(numbers))
        last = len(numbers) - 1
        return [numbers[round(i * last / max(1, kills - 1))] for i in range(kills)]

    def kill_at(self, number, again=0):
        """Kill a training at an operation, its resumption at another, and resume.

        Returns:
            What differs from the training that was left alone.
        """
        work_dir = self.folder / f'getötet bei {number}'
        status = self.train(work_dir, kill=number)
        if status != -signal.SIGKILL:
            return [f'was to be killed and ended with {status}']
        if again:
            self.train(work_dir, '--resume', kill=again)
        return self.resume(work_dir)

    def kill_after(self, seconds, number):
        """Kill a training from outside after some time, and resume.

        Returns:
            What differs from the training that was left alone.
        """
        work_dir = self.folder / f'getötet nach {number}'
        process = self.start(work_dir)
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        wait(process)
        return self.resume(work_dir)

    def resume(self, work_dir):
        """Resume, compare, and remove the work dir if it is as it should be."""
        status = self.train(work_dir, '--resume')
        if status != 0:
            return [f'--resume ended with {status}', self.output(work_dir)]
        found = differences(self.whole, work_dir)
        output = work_dir.with_suffix('.compare')
        if self.commands.run('compare', self.whole, work_dir, output=output):
            found.append(f'mmfakd compare: {output.read_text()[-500:]}')
        if not found and not self.keep:
            shutil.rmtree(work_dir)
        return found


def try_all(trial, kills, of, outside, seed):
    """Kill trainings, and print what came of it.

    Returns:
        How many were killed, and how many of them resumed as they should.
    """
    draw, good, total = random.Random(seed), 0, 0
    operations = len(trial.operations)
    print(f'  {operations} operations in {trial.duration:.1f} s', flush=True)
    numbers = trial.spread(kills, of)
    for index, number in enumerate(numbers):
        again = draw.randint(1, operations) if index % 5 == 4 else 0
        found = trial.kill_at(number, again)
        name, _, rest = trial.operations[number - 1].partition(' ')[2].partition(' ')
        path = rest.rpartition(' ')[0].replace(f'{trial.whole.resolve()}/', '')
        where = f'{number} {name} {path}' + (f', then at {again}' if again else '')
        print(f'  {where}: {"resumed" if not found else "LOST"}', flush=True)
        print(*(f'    {line}\n' for line in found), sep='', end='', flush=True)
        good, total = good + (not found), total + 1
    for index in range(outside):
        seconds = draw.uniform(0, trial.duration)
        found = trial.kill_after(seconds, index)
        result = 'resumed' if not found else 'LOST'
        print(f'  kill -9 after {seconds:.2f} s: {result}', flush=True)
        print(*(f'    {line}\n' for line in found), sep='', end='', flush=True)
        good, total = good + (not found), total + 1
    return good, total


def main():
    """Try the cases that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('cases', nargs='*', metavar='CASE', help=', '.join(CASES))
    parser.add_argument('--config', help='a config of your own in place of the cases')
    parser.add_argument('--kills', type=int, default=40, help='default: 40')
    parser.add_argument('--of', default='', metavar='REGEX', help='of such operations')
    parser.add_argument('--outside', type=int, default=0, help='kill -9 so many times')
    parser.add_argument('--seed', type=int, default=0, help='of the random kills')
    parser.add_argument('--folder', type=Path, help='for work dirs; default: temporary')
    parser.add_argument('--keep', action='store_true', help='all work dirs')
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f'no such case: {", ".join(unknown)}')
    library = use_library()
    commands = Commands(library)
    from mmengine.config import Config

    names = [args.config] if args.config else args.cases or list(CASES)
    good = total = 0
    for name in names:
        print(f'{name}', flush=True)
        if name == 'detector' and not BCCD.is_dir():
            print(f'  left out: there is no {BCCD}', flush=True)
            continue
        folder = args.folder / Path(name).stem if args.folder else Path(mkdtemp())
        folder.mkdir(parents=True, exist_ok=True)
        cfg = Config.fromfile(name) if args.config else CASES[name]()
        commands.load_scope(cfg.default_scope)
        trial = Trial(commands, write_config(cfg, folder), folder, args.keep)
        trial.prepare()
        results = try_all(trial, args.kills, args.of, args.outside, args.seed)
        print('  {} of {} resumed'.format(*results), flush=True)
        good, total = good + results[0], total + results[1]
        if args.keep or results[0] < results[1]:
            print(f'  work dirs are in {folder}', flush=True)
        else:
            shutil.rmtree(folder)
    print(f'{good} of {total} resumed')
    sys.exit(good < total)


if __name__ == '__main__':
    main()
