# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Do what a newcomer does, from the first page on, and say how long each step takes.

    python .dev_scripts/follow_tutorial.py FOLDER [--data data/cifar100]

In FOLDER an environment is made and mmfakd installed, as docs/en/get_started.md says.
Then follow the trainings of that page, and those of the small images in
docs/en/image_folder.md, on a folder of images: ten classes of CIFAR-100 as PNG files, a
hundred of each to learn from and a hundred to test. Commands and configs are taken from
the pages. Only what they tell the reader to change is changed: the number of classes,
and the image that is classified in the end.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / 'docs' / 'en'
CLASSES, IMAGES = 10, 100
CHANGES = {
    'classes, epochs = 32, 5,': f'classes, epochs = 32, {CLASSES},',
    'val/rose/1.jpg': 'val/class_0/1.png',
}
START = time.monotonic()


def make_images(data: Path, folder: Path) -> None:
    """Write images of CIFAR-100 as files, a folder for each class.

    Args:
        data (Path): Folder of ``train_0.npz`` and ``test.npz``.
        folder (Path): Where the tutorial has its images.
    """
    for split, name in (('train', 'train_0'), ('val', 'test')):
        arrays = np.load(data / f'{name}.npz')
        images, labels = arrays['images'], arrays['labels']
        for label in range(CLASSES):
            target = folder / split / f'class_{label}'
            target.mkdir(parents=True, exist_ok=True)
            for number, row in enumerate(np.flatnonzero(labels == label)[:IMAGES]):
                cv2.imwrite(str(target / f'{number}.png'), images[row][..., ::-1])


def steps(page: str, heading: str | None = None) -> Iterator[tuple[str, str]]:
    """Read what a page asks for.

    Args:
        page (str): Its name.
        heading (str, optional): The part that counts. Defaults to None: all of it.

    Yields:
        tuple[str, str]: A command and ``''``; or the name of a file and its text.
    """
    text = (PAGES / page).read_text()
    if heading:
        text = re.split(r'^## ', text.partition(f'## {heading}\n')[2], flags=re.M)[0]
    for kind, block in re.findall(r'^```(bash|python)\n(.*?)^```', text, re.M | re.S):
        if kind == 'bash':
            for line in re.sub(r'\\\n\s*', '', block).splitlines():
                yield re.sub(r'\s+#.*', '', line), ''
        else:
            yield re.match(r'# (\w+\.py)', block)[1], block  # type: ignore[index]


def follow(page: str, folder: Path, path: str, heading: str | None = None) -> None:
    """Do what a page asks for.

    Args:
        page (str): Its name.
        folder (Path): Where to do it.
        path (str): Folders of programs.
        heading (str, optional): The part that counts.
    """
    for command, text in steps(page, heading):
        for before, now in CHANGES.items():
            text = text.replace(before, now)
        if text:
            (folder / command).write_text(text)
        if command.startswith('pip install'):
            command = f"pip install --quiet '{REPOSITORY}[stock]'"
        # What is no config is a script.
        if not text or 'import ' in text:
            run(f'python {command}' if text else command, folder, path)


def run(command: str, folder: Path, path: str) -> None:
    """Run a command, and say how long it took.

    Args:
        command (str): As one types it.
        folder (Path): Where.
        path (str): Folders of programs.

    Raises:
        SystemExit: If it fails.
    """
    begin = time.monotonic()
    environment = dict(os.environ, PATH=path, OMP_NUM_THREADS='1')
    environment.pop('PYTHONPATH', None)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    now = time.monotonic()
    print(f'{now - START:5.0f} s  {now - begin:4.0f} s  {command}', flush=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    if ' compare ' in command:
        print(done.stdout)


def main() -> None:
    """Follow the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path)
    parser.add_argument('--data', type=Path, default=REPOSITORY / 'data' / 'cifar100')
    args = parser.parse_args()
    work = args.folder.resolve() / 'work'
    make_images(args.data, work / 'data' / 'flowers')
    venv.create(work.parent / 'env', with_pip=True)
    path = f'{work.parent / "env" / "bin"}:{os.environ["PATH"]}'
    follow('get_started.md', work, path)
    follow('image_folder.md', work, path, 'Small images')


if __name__ == '__main__':
    main()
