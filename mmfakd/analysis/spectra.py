# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Draw what frequency attention learned.

Upper row: magnitude of the filter of each level, mean over its channels, the mean
(DC) in the middle. Lower row: amplitude spectra over the frequency's radius of the
teacher's features and of the student's prediction of them, before training and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor

from mmfakd.checkpoints.fetch import fetch_checkpoint
from mmfakd.checkpoints.state_dict import find_state_dict
from mmfakd.messages import progress
from mmfakd.model_zoo.resolve import resolve_model_cfg
from mmfakd.models.layers import FrequencyAttention

from .distillation import open_distillation

Pair = tuple[Tensor, Tensor]


def filter_magnitude(layer: FrequencyAttention) -> Tensor:
    """Mean magnitude of a filter on its full grid.

    Args:
        layer (FrequencyAttention): The layer, with a global branch.

    Returns:
        Tensor: (H, W), the mean (DC) in the middle.
    """
    with torch.no_grad():
        half = layer.spectrum().abs().mean((0, 1))
    width = layer.grid[1]
    columns = torch.arange(half.shape[1], width)
    mirrored = half.flip(0).roll(1, 0)[:, width - columns]
    return torch.fft.fftshift(torch.cat([half, mirrored], 1))


def radial_spectrum(feature: Tensor) -> Tensor:
    """Root mean square amplitude over the radius of the frequency.

    Args:
        feature (Tensor): (N, C, H, W).

    Returns:
        Tensor: (R,), entry r for frequencies of r cycles per image, rounded.
    """
    height, width = feature.shape[-2:]
    power = torch.fft.fft2(feature.float(), norm='ortho').abs().square().mean((0, 1))
    rows = torch.fft.fftfreq(height, 1 / height)[:, None]
    columns = torch.fft.fftfreq(width, 1 / width)
    radius = (rows.square() + columns.square()).sqrt().round().long().flatten()
    total = torch.zeros(int(radius.max()) + 1).index_add(0, radius, power.flatten())
    return (total / radius.bincount().clamp_min(1)).sqrt()


@torch.no_grad()
def compared_features(model: Any, batches: Sequence[dict]) -> dict[str, Pair]:
    """Run batches and catch what the distillation losses compare.

    Args:
        model (BaseModel): The distillation algorithm.
        batches (Sequence[dict]): Batches of the data loader.

    Returns:
        dict[str, tuple[Tensor, Tensor]]: Level -> (prediction, teacher feature), of
        the levels whose features are maps.
    """
    losses = dict(model.distiller.distill_losses.named_children())
    if hasattr(model.distiller, 'level_loss'):
        losses[''] = model.distiller.level_loss
    caught: list[tuple[str, Pair]] = []
    hooks = [
        loss.register_forward_pre_hook(partial(_catch, caught, name), with_kwargs=True)
        for name, loss in losses.items()
    ]
    model.eval()
    pairs: dict[str, list[Pair]] = {}
    for batch in batches:
        caught.clear()
        data = model.data_preprocessor(batch, False)
        model.loss(data['inputs'], data['data_samples'])
        # A review distiller calls one loss for all levels, in their order.
        numbers = count()
        for name, pair in caught:
            pairs.setdefault(name or f'level {next(numbers)}', []).append(pair)
    for hook in hooks:
        hook.remove()
    return {
        level: (torch.cat([a for a, _ in both]), torch.cat([b for _, b in both]))
        for level, both in pairs.items()
        if all(torch.is_tensor(feature) and feature.dim() == 4 for feature in both[0])
    }


def _catch(caught: list, name: str, module: Any, args: tuple, kwargs: dict) -> None:
    prediction, teacher, *_ = (*args, *kwargs.values())
    caught.append((name, (prediction, teacher)))


def plot_spectra(
    config: str,
    checkpoint: str,
    out: str,
    teacher_ckpt: str | None = None,
    batches: int = 1,
) -> str:
    """Draw the filters of a run, and the spectra of features with and without it.

    Args:
        config (str): Path of a distillation's config, or its name.
        checkpoint (str): Checkpoint of that run.
        out (str): Picture to write.
        teacher_ckpt (str, optional): The teacher's weights.
        batches (int): Validation batches.

    Returns:
        str: What was drawn.

    Raises:
        FileNotFoundError: If there is no such config; near names are listed.
        ValueError: If the distiller has no frequency attention on maps.
    """
    with open_distillation(config, teacher_ckpt) as cfg:
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
        seen = [batch for _, batch in zip(range(batches), loader)]
        # Without these lines of initialisation, one for each parameter.
        MMLogger.get_instance('plot', log_level='WARNING')
        set_random_seed(cfg.get('randomness', {}).get('seed') or 0)
        progress('building teacher and student')
        model_cfg, _ = resolve_model_cfg(cfg.model, cfg.get('data_preprocessor'))
        model = MODELS.build(model_cfg)
        model.init_weights()
        progress(f'running {len(seen)} batches, before training and after')
        before = compared_features(model, seen)
        trained = find_state_dict(fetch_checkpoint(checkpoint), checkpoint)
        model.load_state_dict(trained, strict=True)
        after = compared_features(model, seen)
        filters = {
            name: layer
            for name, layer in model.distiller.named_modules()
            if isinstance(layer, FrequencyAttention)
            and layer.with_global
            # One frequency is a number, not a picture.
            and layer.grid != (1, 1)
        }
        levels = {
            name: (*pair, before[name][0])
            for name, pair in after.items()
            if pair[1].shape[-2:] != (1, 1)
        }
        if not filters or not levels:
            raise ValueError(
                'no FrequencyAttention on maps larger than 1x1 in its distiller; '
                'expected a FAM-KD config.'
            )
    columns = max(len(filters), len(levels))
    figure = Figure(figsize=(3.2 * columns, 6), layout='tight')
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, layer) in zip(axes[0], filters.items()):
        _draw_filter(axis, name, layer)
    for axis, (name, features) in zip(axes[1], levels.items()):
        _draw_spectra(axis, name, *features)
    axes[0][0].set_ylabel('cycles per image')
    axes[1][0].set_ylabel('root mean square amplitude')
    figure.savefig(out, dpi=120)
    return f'{out}: {len(filters)} filters, {len(levels)} spectra.'


def _draw_filter(axis: Axes, name: str, layer: FrequencyAttention) -> None:
    height, width = layer.grid
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    extent = (left, left + width, top + height, top)
    image = axis.imshow(filter_magnitude(layer), extent=extent, cmap='magma')
    axis.figure.colorbar(image, ax=axis, fraction=0.046)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axis, f'filter, {height}x{width}\n{name}')


def _draw_spectra(
    axis: Axes, name: str, after: Tensor, teacher: Tensor, before: Tensor
) -> None:
    axis.plot(radial_spectrum(teacher), 'k-', label='teacher')
    axis.plot(radial_spectrum(before), 'C1:', label='student, before')
    axis.plot(radial_spectrum(after), 'C0--', label='student, after')
    axis.set_yscale('log')
    axis.legend(fontsize=7)
    _label(axis, f'spectrum, {name}')


def _label(axis: Axes, title: str) -> None:
    axis.set_visible(True)
    axis.set_title(title, fontsize=8)
    axis.set_xlabel('cycles per image')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
