# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Draw the gallery of docs/en/pictures.md from finished trainings.

    python .dev_scripts/gallery.py [NAME ...]

``RUNS`` says which trainings, and the page which commands made them. The pictures are
those of `mmfakd plot WORK_DIR`, and so are the captions.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from mmfakd.analysis.distillation import open_distillation
from mmfakd.analysis.learning_page import CAPTIONS, learning_sections
from mmfakd.analysis.read_run import read_run
from mmfakd.analysis.trained_levels import beginning, look_at_levels
from mmfakd.checkpoints.latest import find_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / 'docs/en/pictures.md'
FIGURES = REPOSITORY / 'docs/en/figures'
GALLERY = re.compile(r'(<!-- gallery -->\n).*?(<!-- end of gallery -->)', re.S)


class Run(NamedTuple):
    """A training that is shown.

    Args:
        title (str): What it is.
        work_dir (str): Where it is.
        shown (dict[str, str]): Key of a caption -> title of the section that is shown.
    """

    title: str
    work_dir: str
    shown: dict[str, str]


RUNS = dict(
    digits=Run(
        'Digits, ResNet-18 of width 4 under width 32, FAM-KD with review, 30 epochs',
        'work_dirs/pictures/digits',
        dict(
            gradients='Ratio of gradients',
            gap_courses='Gap in the course of training',
            filter_courses='Filters in the course of training',
        ),
    ),
    cifar100=Run(
        'CIFAR-100, ResNet-20 under ResNet-56, FAM-KD with review, 15 epochs on 10,000 '
        'images',
        'work_dirs/cifar100_balance/fam_kd_review_balance_seed0',
        dict(
            filters='Filters',
            spectra='Spectra',
            gaps='Gap by band',
            attention='Attention',
        ),
    ),
    bccd=Run(
        'Blood cells (BCCD), GFL with a quarter of the width under GFL-R18, 12 epochs',
        'work_dirs/bccd_gfl_balance/fam_kd_balance_seed0',
        dict(filters='Filters', attention='Attention'),
    ),
)


def picture_of(run: str, key: str) -> str:
    """Name a picture.

    Args:
        run (str): A key of ``RUNS``.
        key (str): Key of its caption.

    Returns:
        str: The name of its file.
    """
    return f'gallery_{run}_{key}.png'


def draw(name: str) -> None:
    """Draw the pictures of a training.

    Args:
        name (str): A key of ``RUNS``.

    Raises:
        SystemExit: If the training is not there.
    """
    run = RUNS[name]
    checkpoint = find_checkpoint(run.work_dir).path
    if checkpoint is None:
        raise SystemExit(f'{run.work_dir} has no checkpoint; {PAGE} says how to train.')
    with open_distillation(run.work_dir) as cfg:
        begin = beginning(read_run(run.work_dir))
        seen = look_at_levels(cfg, checkpoint, begin=begin)
    sections = {s.title: s for s in learning_sections(run.work_dir, seen)}
    for key, title in run.shown.items():
        figure = sections[title].figure
        if figure is None:
            raise SystemExit(f'{run.work_dir}: {title!r} was not recorded.')
        save(figure, FIGURES / picture_of(name, key))


def save(figure: Figure, path: Path) -> None:
    """Save a figure as a small file, in 128 colours.

    Args:
        figure (Figure): The figure.
        path (Path): The file, ``.png``.
    """
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=72)
    with Image.open(file) as image:
        colours = image.convert('RGB').quantize(128, dither=Image.Dither.NONE)
        colours.save(path, optimize=True)


def gallery() -> str:
    """Write the gallery.

    Returns:
        str: Markdown.
    """
    parts = []
    for name, run in RUNS.items():
        parts.append(f'### {name}\n\n{fill(run.title + ".", 100)}')
        for key, title in run.shown.items():
            caption = fill(CAPTIONS[key], 100)
            picture = f'![{name}: {title.lower()}](figures/{picture_of(name, key)})'
            parts.append(f'{picture}\n\n*{title}.* {caption}')
    return '\n\n'.join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Draw pictures, and write the gallery.

    Args:
        arguments (list[str], optional): Of the command line.

    Raises:
        SystemExit: If the page has no place for it, or a training is not there.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('runs', nargs='*', metavar='NAME', help=f'of {list(RUNS)}')
    for name in parser.parse_args(arguments).runs or RUNS:
        draw(name)
    text, count = GALLERY.subn(
        lambda found: f'{found[1]}\n{gallery()}\n\n{found[2]}', PAGE.read_text()
    )
    if not count:
        raise SystemExit(f'{PAGE} has no place for the gallery: {GALLERY.pattern}')
    PAGE.write_text(text)


if __name__ == '__main__':
    main()
