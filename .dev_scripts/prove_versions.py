# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Try this environment's versions and write what came of it to docs/en/versions/.

    python .dev_scripts/prove_versions.py tested [pytest's own arguments]

Distils the digits of the quick start, resumes, exports, classifies with the exported
student in stock mmpretrain; then runs the tests without the slow ones. ``noxfile.py``
calls it in an environment for each set of versions. With ``--report FILE`` tests are
counted that have run already: ``PYTEST_ADDOPTS=--junitxml=FILE bash .ci/run``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LOGS = REPOSITORY / 'docs' / 'en' / 'versions'
TEACHER = 'r18w32_1xb50_digits'
PAIR = 'fakd_review_r18w32_r18w4_1xb50_digits'
MMFAKD = [sys.executable, '-m', 'mmfakd']
# The first that is installed of each: its name, and its column.
PACKAGES = {
    'torch': ('torch',),
    'torchvision': ('torchvision',),
    'numpy': ('numpy',),
    'opencv': ('opencv-python', 'opencv-python-headless'),
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'setuptools': ('setuptools',),
}


class StepError(Exception):
    """A step of the digits that failed; the message is the end of its output."""


def versions() -> dict[str, str]:
    """Read the installed versions.

    Returns:
        dict[str, str]: ``'name version'`` where the name says more than the key.
    """
    found = {'python': platform.python_version()}
    for key, names in PACKAGES.items():
        for name in names:
            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            plain = name in (key, 'opencv-python')
            found[key] = version if plain else f'{name} {version}'
            break
    spec = importlib.util.find_spec('mmcv')
    folders = spec.submodule_search_locations if spec else None
    compiled = [
        file for folder in folders or () for file in Path(folder).glob('_ext.*')
    ]
    found['operators'] = 'yes' if compiled else 'no'
    return found


def step(*command: str) -> str:
    """Run a step of the digits.

    Args:
        *command (str): Its words.

    Returns:
        str: What it prints.

    Raises:
        StepError: Where it fails.
    """
    print('$', *command, flush=True)
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines()
        print(*lines[-40:], sep='\n', file=sys.stderr)
        raise StepError(lines[-1] if lines else f'exit status {done.returncode}')
    return done.stdout


def epochs(number: int) -> list[str]:
    """Spell the options of a short training.

    Args:
        number (int): How many epochs.

    Returns:
        list[str]: The options.
    """
    return ['--cfg-options', f'train_cfg.max_epochs={number}']


def distil_digits(folder: Path) -> dict[str, Any]:
    """Distil, resume, export, and classify with the exported student.

    Args:
        folder (Path): Where to write.

    Returns:
        dict[str, Any]: What the steps yielded.
    """
    teacher, student = folder / 'teacher', folder / 'student'
    train = [*MMFAKD, 'train']
    step(*train, TEACHER, '--work-dir', str(teacher), *epochs(5))
    weights = ['--teacher-ckpt', str(teacher / 'epoch_5.pth')]
    distil = [*train, PAIR, '--work-dir', str(student), *weights]
    step(*distil, *epochs(5))
    resumed = step(*distil, '--resume', *epochs(8))
    # Where it goes on is in the log, beside the accuracy of each epoch.
    went_on = re.findall(r'Epoch\(train\)\s+\[(\d+)\]', resumed)
    accuracies = re.findall(r'accuracy/top1: ([\d.]+)', resumed)
    exported = folder / 'student.pth'
    step(*MMFAKD, 'export', str(student / 'epoch_8.pth'), '-o', str(exported))
    said = step(sys.executable, 'demo/classify_with_mmpretrain.py', str(exported))
    right = re.search(r'(\d+) of (\d+) right; loaded with strict=True', said)
    return {
        'ok': bool(right) and went_on[:1] == ['6'],
        'resumed_at_epoch': int(went_on[0]) if went_on else None,
        'accuracy': float(accuracies[-1]) if accuracies else None,
        'exported_student': right[0] if right else None,
    }


def run_tests(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Run the tests.

    Args:
        folder (Path): For the report.
        arguments (list[str]): Those of pytest.

    Returns:
        dict[str, Any]: As of :func:`count_tests`.
    """
    report = folder / 'tests.xml'
    command = [sys.executable, '-m', 'pytest', '-q', f'--junitxml={report}', *arguments]
    environ = {**os.environ, 'OMP_NUM_THREADS': '1'}
    status = subprocess.run(command, cwd=REPOSITORY, env=environ).returncode
    if not report.exists():
        return {'ok': False, 'reason': f'pytest ended with status {status}'}
    return {**count_tests(report), 'ok': status == 0}


def count_tests(report: Path) -> dict[str, Any]:
    """Count the tests of a report.

    Args:
        report (Path): What pytest's ``--junitxml`` wrote.

    Returns:
        dict[str, Any]: How many passed, were skipped and failed, and which failed.
    """
    counts = {'passed': 0, 'skipped': 0, 'failed': 0}
    failures = []
    for case in ElementTree.parse(report).iter('testcase'):
        tags = {child.tag for child in case}
        if tags & {'failure', 'error'}:
            counts['failed'] += 1
            failures.append(f'{case.get("classname")}::{case.get("name")}')
        else:
            counts['skipped' if 'skipped' in tags else 'passed'] += 1
    return {'ok': not failures, **counts, 'failures': failures}


def write(session: str, log: dict[str, Any]) -> None:
    """Write the log of a session.

    Args:
        session (str): Its name.
        log (dict[str, Any]): What came of it.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / f'{session}.json').write_text(json.dumps(log, indent=2) + '\n')


def main() -> None:
    """Try everything, write the log, and fail where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('session', help='name of the log')
    parser.add_argument('--no-tests', action='store_true', help='the digits alone')
    parser.add_argument(
        '--report',
        type=Path,
        help='of pytest: tests that are not run again',
    )
    args, pytest_arguments = parser.parse_known_args()
    # Else each process would compile anew what it imports.
    os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
    log: dict[str, Any] = {'date': datetime.date.today().isoformat()}
    selection = pytest_arguments or ([] if args.report else ['-m', 'not slow'])
    log.update(versions=versions(), selection=' '.join(selection))
    with tempfile.TemporaryDirectory() as name:
        start = time.monotonic()
        try:
            log['digits'] = distil_digits(Path(name))
        except StepError as error:
            log['digits'] = {'ok': False, 'reason': str(error)}
        log['digits']['seconds'] = round(time.monotonic() - start)
        if args.report:
            log['tests'] = count_tests(args.report)
        elif not args.no_tests:
            start = time.monotonic()
            log['tests'] = run_tests(Path(name), selection)
            log['tests']['seconds'] = round(time.monotonic() - start)
    # At the end: a test compares the table with the logs.
    write(args.session, log)
    sys.exit(not all(log.get(key, {'ok': True})['ok'] for key in ('digits', 'tests')))


if __name__ == '__main__':
    main()
