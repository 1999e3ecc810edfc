# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The main job of mmfakd on real images, from teacher to exported student."""

import argparse
import os
import os.path as osp
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mmengine.config import Config

from mmfakd.analysis.compare_runs import compare, format_table
from mmfakd.analysis.curves import save_curves
from mmfakd.analysis.read_run import read_run

CONFIGS = 'configs/fakd/digits'
TEACHER = 'r18w32_1xb50_digits'
STUDENT = 'r18w4_1xb50_digits'
PAIR = 'r18w32_r18w4_1xb50_digits'
METHODS = {
    'student alone': STUDENT,
    'KD': f'kd_{PAIR}',
    'ReviewKD': f'reviewkd_{PAIR}',
    'FAM-KD layer to layer': f'fakd_layer_{PAIR}',
    'FAM-KD with review': f'fakd_review_{PAIR}',
}
FAM = METHODS['FAM-KD with review']
METRIC = 'accuracy/top1'
# Far below what the teacher reaches, far above chance (10 %).
LEAST_TEACHER_ACCURACY = 90.0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
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
    """Print a step of the job."""
    print(f'\n== {text}', flush=True)


def train(config: str, work_dir: str, *options: str) -> None:
    """Train one config in a process of its own; its output goes to a log file."""
    os.makedirs(work_dir, exist_ok=True)
    log = osp.join(work_dir, 'train.log')
    command = [sys.executable, 'tools/train.py', f'{CONFIGS}/{config}.py']
    command += ['--work-dir', work_dir, *options]
    with open(log, 'w') as file:
        result = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        with open(log) as file:
            print(''.join(file.readlines()[-15:]), file=sys.stderr)
        sys.exit(f'{" ".join(command)} failed; its whole output is in {log}.')


def run(*command: str) -> None:
    """Run a tool as a user would; stop if it fails."""
    print(f'$ python {" ".join(command)}', flush=True)
    result = subprocess.run([sys.executable, *command])
    if result.returncode != 0:
        sys.exit(result.returncode)


def main() -> None:
    """Train, compare, draw, export."""
    args = parse_args()
    cores = os.cpu_count() or 1
    # The tensors are small: on a busy machine a second thread of a process makes it
    # twenty times slower, on an idle one hardly faster.
    os.environ['OMP_NUM_THREADS'] = '1'
    root = args.work_dir
    teacher_dir = osp.join(root, TEACHER)
    epochs = Config.fromfile(f'{CONFIGS}/{TEACHER}.py').train_cfg.max_epochs
    teacher_ckpt = osp.join(teacher_dir, f'epoch_{epochs}.pth')

    say(f'Training the teacher; its log: {teacher_dir}/train.log')
    train(TEACHER, teacher_dir)
    teacher = read_run(teacher_dir)
    reached = teacher.last(METRIC)
    print(f'Teacher: {reached:.1f} % of 500 test images right.')
    if reached < LEAST_TEACHER_ACCURACY:
        sys.exit(
            f'The teacher reaches {reached:.1f} %, expected at least '
            f'{LEAST_TEACHER_ACCURACY} %: nothing can be learned from it. See its log.'
        )

    several = args.seeds > 1
    methods = (
        METHODS
        if several
        else {
            name: config for name, config in METHODS.items() if config in (STUDENT, FAM)
        }
    )
    jobs = []
    for seed in range(args.seeds):
        for config in methods.values():
            options = ['--seed', str(seed)]
            if config != STUDENT:
                options += ['--teacher-ckpt', teacher_ckpt]
            jobs.append((config, osp.join(root, f'{config}_seed{seed}'), options))
    say(f'Training {len(jobs)} students, {cores} at a time, seeds from 0')
    start = time.time()
    with ThreadPoolExecutor(cores) as pool:
        futures = [
            pool.submit(train, config, work_dir, *options)
            for config, work_dir, options in jobs
        ]
        for (_, work_dir, _), future in zip(jobs, futures):
            future.result()
            accuracy = read_run(work_dir).last(METRIC)
            print(f'{time.time() - start:5.0f} s  {accuracy:5.1f} %  {work_dir}')

    say('Comparison (accuracy on the 500 test images, in %)')
    runs = {
        name: [read_run(osp.join(root, f'{c}_seed{s}')) for s in range(args.seeds)]
        for name, c in methods.items()
    }
    comparison = compare(runs, METRIC, baseline='student alone', teacher=teacher)
    table = format_table(comparison)
    print(table)
    with open(osp.join(root, 'table.md'), 'w') as file:
        file.write(table + '\n')
    curves = osp.join(root, 'curves.png')
    save_curves(comparison, curves)

    fam_dir = osp.join(root, f'{FAM}_seed0')
    fam_ckpt = osp.join(fam_dir, f'epoch_{epochs}.pth')
    picture = osp.join(root, 'frequency_attention.png')
    student = osp.join(root, 'student.pth')
    say('Drawing what was learned')
    run(
        'tools/plot_frequency_attention.py',
        f'{CONFIGS}/{FAM}.py',
        fam_ckpt,
        picture,
        '--teacher-ckpt',
        teacher_ckpt,
    )
    say('Exporting the student')
    run('tools/export_student.py', fam_ckpt, student, '--force')
    say('Classifying with it in stock mmpretrain, without mmfakd')
    run('demo/classify_with_mmpretrain.py', student)

    say('Done')
    print(f'table       {root}/table.md')
    print(f'curves      {curves} (accuracy and loss by epoch)')
    print(f'picture     {picture} (filters and spectra)')
    print(f'student     {student} (stock mmpretrain, strict=True)')
    print(f'run         {fam_dir} (checkpoint, student file, logs)')
    print('\nNext: the five-seed table of the README')
    print('    bash tools/quickstart.sh --seeds 5')
    print('or a distillation of your own, see "Six lines" in the README.')


if __name__ == '__main__':
    main()
