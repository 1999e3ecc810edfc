# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Published weights as files of one's own."""

from __future__ import annotations

import os.path as osp
import shutil
from pathlib import Path

from mmengine.config import Config

from mmfakd.compat import load_checkpoint_file
from mmfakd.model_zoo.outputs import check_writable
from mmfakd.model_zoo.published import published_entry

from .atomic import whole_file
from .config_text import read_config_text
from .download import download, file_hash, promised_hash
from .image_files import take_image_files

# How the library of a model uses it.
_INFERENCERS = dict(
    mmpretrain='from mmpretrain import ImageClassificationInferencer as Inferencer\n'
    '    infer = Inferencer({config!r}, pretrained={weights!r})',
    mmdet='from mmdet.apis import DetInferencer as Inferencer\n'
    '    infer = Inferencer(weights={weights!r})',
)


def get_published(name: str, out: str = '.', force: bool = False) -> str:
    """Write published weights, and the config of the stock model, into a folder.

    What comes with the package is copied; what does not is downloaded. The file is
    read by the restricted loader, which runs nothing of it.

    Args:
        name (str): Name of a model of ``mmfakd zoo list``.
        out (str): The folder. Defaults to the present one.
        force (bool): Whether to overwrite files of other content.

    Returns:
        str: What was written, and how it is used.

    Raises:
        FileExistsError: If there is another file of that name.
        OSError: If a file cannot be written.
        DownloadError: If a download fails.
        ValueError: If there is no such model, it has no weights, or their file does not
            have the hash in its name.
    """
    entry = published_entry(name)
    source = entry['Weights']
    file = source if osp.isfile(source) else download(source)
    weights = Path(out) / Path(source).name
    found, promised = file_hash(file), promised_hash(weights.name)
    if promised is None or not found.startswith(promised):
        raise ValueError(
            f'{file}: its name promises the SHA-256 {promised}..., the file has '
            f'{found[:8]}.... It was changed or damaged: install mmfakd again.'
        )
    config = read_config_text(load_checkpoint_file(file)['meta']['cfg'])
    take_image_files(config)
    text = config.pretty_text
    as_file = weights.with_suffix('.py')
    for path, differs in (
        (weights, lambda path: file_hash(path) != found),
        (as_file, lambda path: path.read_text() != text),
    ):
        if path.exists() and not force and differs(path):
            raise FileExistsError(
                f'{path} exists, with other content; choose another folder, or give '
                '--force.'
            )
        check_writable(str(path))
    with whole_file(weights) as part:
        shutil.copyfile(file, part)
    with whole_file(as_file) as part:
        Path(part).write_text(text, encoding='utf-8')
    return (
        f'Written: {weights}, and {as_file}, the config of its model.\n'
        f'As a teacher, without a file: --teacher-ckpt {entry["Name"]}\n'
        + _how_to_infer(config, str(as_file), str(weights))
    )


def _how_to_infer(config: Config, file: str, weights: str) -> str:
    # Backbones that the libraries lack are registered by an import of mmfakd.
    first = 'import mmfakd; ' if "'mmfakd." in str(config.model) else ''
    lines = _INFERENCERS[config.default_scope].format(config=file, weights=weights)
    return f'On images:\n    {first}{lines}'
