# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Published files out of work dirs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.runner import Runner

from mmfakd.analysis.read_run import read_run
from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.checkpoints.download import file_hash
from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.student import export_plain, export_student
from mmfakd.checkpoints.write import write_weights

from .evaluate import evaluate
from .table import METRICS, percent

# What an inferencer or an evaluation reads beside the arguments of a Runner.
_KEPT = {
    *inspect.signature(Runner).parameters,
    'data_root',
    'dataset_type',
    'test_pipeline',
    'train_pipeline',
}
_HOW_IT_RAN = {'work_dir', 'load_from', 'resume', 'launcher', 'experiment_name'}


def export_run(
    name: str, work_dir: str, metric: str, commit: str, folder: Path
) -> dict[str, Any]:
    """Publish the last checkpoint of a training.

    The weights are stored in half precision where that changes no score, under a name
    with their date and the beginning of their SHA-256.

    Args:
        name (str): Of the model.
        work_dir (str): Of the training. Data are looked for below the present folder.
        metric (str): Which of ``METRICS`` counts.
        commit (str): Of the code that trained.
        folder (Path): Where the file goes, in place of others of that model.

    Returns:
        dict: What is known of it: file, hash, size, precision, the training, scores.

    Raises:
        ValueError: If the weights do not score what the log of their training says, or
            it counted no epochs.
    """
    run = read_run(work_dir)
    if run.unit != 'epoch' or run.length is None:
        raise ValueError(f'{work_dir}: expected a training of a number of epochs.')
    path = Path(work_dir) / f'epoch_{run.length}.pth'
    checkpoint = _clean(fetch_checkpoint(str(path)), name, commit)
    key, _, _ = METRICS[metric]
    logged = percent(run.scores[key][run.length], metric)
    scores = {}
    with TemporaryDirectory() as made:
        for precision, written in _precisions(checkpoint):
            # torch writes a file's name into it.
            file = Path(made) / precision / 'weights.pth'
            file.parent.mkdir()
            write_weights(written, str(file))
            scores[precision] = evaluate(file, metric)
        if scores['float32'] != logged:
            raise ValueError(
                f'{path}: its log says {logged}, its evaluation {scores["float32"]}.'
            )
        best = 'float16' if scores.get('float16') == logged else 'float32'
        content = (Path(made) / best / 'weights.pth').read_bytes()
        sha256 = file_hash(str(Path(made) / best / 'weights.pth'))
    date = checkpoint['meta']['time'][:8]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f'{name}_20*.pth'):
        old.unlink()
    file = folder / f'{name}_{date}-{sha256[:8]}.pth'
    file.write_bytes(content)
    loader: dict[str, Any] = run.config.train_dataloader
    return dict(
        file=file.name,
        sha256=sha256,
        bytes=len(content),
        precision=best,
        metric=metric,
        score=logged,
        **{f'score_{precision}': score for precision, score in scores.items()},
        parameters=sum(v.numel() for v in _learnt(checkpoint['state_dict'])),
        seed=run.seed,
        epochs=run.length,
        batch_size=loader['batch_size'],
        date=f'{date[:4]}-{date[4:6]}-{date[6:]}',
        commit=commit,
        torch=torch.__version__.partition('+')[0],
        seconds=round(run.seconds or 0, 1),
        curve=[[p, percent(v, metric)] for p, v in sorted(run.scores[key].items())],
        losses=[[p, round(v, 5)] for p, v in sorted(run.losses.items())],
    )


def _clean(checkpoint: dict, name: str, commit: str) -> dict:
    """The plain model, with the part of its config that others need."""
    distilled = any(k.startswith('architecture.') for k in checkpoint['state_dict'])
    exported = (export_student if distilled else export_plain)(checkpoint)
    meta = exported['meta']
    cfg = read_config_text(meta['cfg'])
    for key in [*cfg]:
        if key not in _KEPT or key in _HOW_IT_RAN:
            cfg.pop(key)
    meta.update(cfg=cfg.pretty_text, mmfakd=dict(name=name, commit=commit))
    meta.pop('experiment_name', None)
    return exported


def _precisions(checkpoint: dict) -> Iterator[tuple[str, dict]]:
    yield 'float32', checkpoint
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in checkpoint['state_dict'].items()
    }
    # Beyond 65504 there is nothing but infinity.
    if all(value.isfinite().all() for value in half.values()):
        yield 'float16', dict(checkpoint, state_dict=half)


def _learnt(state_dict: dict) -> list[torch.Tensor]:
    """Without statistics and constants, which are no parameters."""
    buffers = ('running_mean', 'running_var', 'num_batches_tracked', 'project')
    return [value for key, value in state_dict.items() if not key.endswith(buffers)]
