# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The main job of mmfakd on real images, from teacher to exported student."""

import argparse
import os
import os.path as osp
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mmengine.runner import find_latest_checkpoint

from mmfakd.analysis.read_run import read_run

TEACHER = 'r18w32_1xb50_digits'
STUDENT = 'r18w4_1xb50_digits'
PAIR = 'r18w32_r18w4_1xb50_digits'
FAM = f'fakd_review_{PAIR}'
METHODS = {
    'student alone': STUDENT,
    'KD': f'kd_{PAIR}',
    'ReviewKD': f'reviewkd_{PAIR}',
    'FAM-KD layer to layer': f'fakd_layer_{PAIR}',
    'FAM-KD with review': FAM,
}
# Far below what the teacher reaches, far above chance (10 %).
LEAST_TEACHER_ACCURACY = 90.0
MMFAKD = [sys.executable, '-m', 'mmfakd']


def parse_args() -> argparse.Namespace:
    """Read the command line.

    Returns:
        argparse.Namespace: The options.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--seeds',
        type=int,
        default=1,
        help='number of seeds, from 0; more than one adds KD, ReviewKD and FAM-KD '
        'layer to layer to the comparison',
    )
    parser.add_argument('--work-dir', default='work_dirs/quickstart')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds {args.seeds}: give a positive number.')
    return args


def say(text: str) -> None:
    """Print a step of the job.

    Args:
        text (str): What comes now.
    """
    print(f'\n== {text}', flush=True)


def train(config: str, work_dir: str, *options: str) -> None:
    """Train one config in a process of its own; its output goes to a log file.

    Args:
        config (str): Its name.
        work_dir (str): Folder for what is written.
        *options (str): Further options of ``mmfakd train``.
    """
    os.makedirs(work_dir, exist_ok=True)
    log = osp.join(work_dir, 'train.log')
    command = ['train', config, '--work-dir', work_dir, *options]
    with open(log, 'w+') as file:
        if subprocess.run([*MMFAKD, *command], stdout=file, stderr=file).returncode:
            file.seek(0)
            print(''.join(file.readlines()[-15:]), file=sys.stderr)
            words = shlex.join(['mmfakd', *command])
            sys.exit(f'{words} failed; its whole output is in {log}.')


def accuracy(work_dir: str) -> float:
    """Read the accuracy of the last epoch.

    Args:
        work_dir (str): Folder of a training.

    Returns:
        float: Percent of the test images.
    """
    return read_run(work_dir).last('accuracy/top1')


def run(*command: str) -> None:
    """Run a command as a user would; stop if it fails.

    Args:
        *command (str): Its words, ``mmfakd`` or ``python`` the first.
    """
    print(f'$ {shlex.join(command)}', flush=True)
    program = MMFAKD if command[0] == 'mmfakd' else MMFAKD[:1]
    status = subprocess.run([*program, *command[1:]]).returncode
    if status:
        sys.exit(status)


def train_teacher(work_dir: str) -> str:
    """Train the teacher, and see that there is something to learn from it.

    Args:
        work_dir (str): Folder for what is written.

    Returns:
        str: Its checkpoint.
    """
    say(f'Training the teacher; its log: {work_dir}/train.log')
    train(TEACHER, work_dir)
    reached = accuracy(work_dir)
    print(f'Teacher: {reached:.1f} % of 500 test images right.')
    if reached < LEAST_TEACHER_ACCURACY:
        sys.exit(
            f'The teacher reaches {reached:.1f} %, expected at least '
            f'{LEAST_TEACHER_ACCURACY} %: nothing can be learned from it. See its log.'
        )
    return find_latest_checkpoint(work_dir)


def train_students(work_dirs: dict[str, list[str]], teacher_ckpt: str) -> None:
    """Train all students, as many at a time as there are cores.

    Args:
        work_dirs (dict[str, list[str]]): Name of a method -> a folder for each seed.
        teacher_ckpt (str): The teacher's checkpoint.
    """
    # Seed by seed, so that the first comparisons are there early.
    jobs = [
        (METHODS[name], folders[seed], str(seed))
        for seed in range(len(work_dirs['student alone']))
        for name, folders in work_dirs.items()
    ]
    cores = os.cpu_count() or 1
    say(f'Training {len(jobs)} students, {cores} at a time, seeds from 0')
    start = time.time()
    with ThreadPoolExecutor(cores) as pool:
        teacher = ['--teacher-ckpt', teacher_ckpt]
        trainings = [
            pool.submit(
                train, name, path, '--seed', seed, *(teacher if name != STUDENT else [])
            )
            for name, path, seed in jobs
        ]
        for (_, path, _), training in zip(jobs, trainings):
            training.result()
            print(f'{time.time() - start:5.0f} s  {accuracy(path):5.1f} %  {path}')


def main() -> None:
    """Train, compare, draw, export."""
    args = parse_args()
    # The tensors are small: on a busy machine a second thread of a process makes it
    # twenty times slower, on an idle one hardly faster.
    os.environ['OMP_NUM_THREADS'] = '1'
    root = args.work_dir
    teacher_dir = osp.join(root, TEACHER)
    teacher_ckpt = train_teacher(teacher_dir)

    work_dirs = {
        name: [osp.join(root, f'{config}_seed{seed}') for seed in range(args.seeds)]
        for name, config in METHODS.items()
        if args.seeds > 1 or config in (STUDENT, FAM)
    }
    train_students(work_dirs, teacher_ckpt)

    table, curves = osp.join(root, 'table.md'), osp.join(root, 'curves.png')
    say('Comparison (accuracy on the 500 test images, in %)')
    runs = [f'{name}={",".join(folders)}' for name, folders in work_dirs.items()]
    run('mmfakd', 'compare', *runs, '--teacher', teacher_dir, '-o', table, '-o', curves)

    fam_dir = work_dirs['FAM-KD with review'][0]
    fam_ckpt = find_latest_checkpoint(fam_dir)
    picture = osp.join(root, 'frequency_attention.png')
    student = osp.join(root, 'student.pth')
    say('Drawing what was learned')
    with_teacher = ('--teacher-ckpt', teacher_ckpt)
    run('mmfakd', 'plot', FAM, fam_ckpt, '-o', picture, *with_teacher)
    say('Exporting the student')
    run('mmfakd', 'export', fam_ckpt, '-o', student, '--force')
    say('Classifying with it in stock mmpretrain, without mmfakd')
    run('python', 'demo/classify_with_mmpretrain.py', student)

    say('Done')
    print(f'table       {table}')
    print(f'curves      {curves} (accuracy and loss by epoch)')
    print(f'picture     {picture} (filters and spectra)')
    print(f'student     {student} (stock mmpretrain, strict=True)')
    print(f'run         {fam_dir} (checkpoint, student file, logs)')
    print('\nNext: the five-seed table of the README')
    print('    bash tools/quickstart.sh --seeds 5')
    print('or a distillation of your own, see "Six lines" in the README.')


if __name__ == '__main__':
    main()
