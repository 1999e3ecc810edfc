# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Draw what frequency attention learned.

Upper row: magnitude of the filter of each level, mean over its channels, the mean
(DC) in the middle. Lower row: amplitude spectra over the frequency's radius of the
teacher's features and of the student's prediction of them, before training and after.
"""

from __future__ import annotations

import matplotlib
import torch
from matplotlib.ticker import MaxNLocator
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

from mmfakd.compat import load_checkpoint_file
from mmfakd.model_zoo.find import config_file
from mmfakd.models.layers import FrequencyAttention

matplotlib.use('Agg')
import matplotlib.pyplot as plt

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
def compared_features(model: nn.Module, batches: list[dict]) -> dict[str, Pair]:
    """Run batches and catch what the distillation losses compare.

    Args:
        model (nn.Module): The distillation algorithm.
        batches (list[dict]): Batches of the data loader.

    Returns:
        dict[str, tuple[Tensor, Tensor]]: Level -> (prediction, teacher feature).
    """
    distiller = model.distiller
    pairs: dict[str, list[Pair]] = {}
    hooks = []

    def catch(name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            values = [*args, *kwargs.values()]
            # A review distiller calls one loss for all levels, in their order.
            level = name or f'level {calls[0] % len(distiller.teacher_levels)}'
            calls[0] += 1
            pairs.setdefault(level, []).append((values[0], values[1]))

        return hook

    calls = [0]
    losses = dict(distiller.distill_losses.named_children())
    if hasattr(distiller, 'level_loss'):
        losses[''] = distiller.level_loss
    for name, loss in losses.items():
        hooks.append(loss.register_forward_pre_hook(catch(name), with_kwargs=True))
    model.eval()
    for batch in batches:
        data = model.data_preprocessor(batch, False)
        model.loss(data['inputs'], data['data_samples'])
    for hook in hooks:
        hook.remove()
    return {
        level: (torch.cat([a for a, _ in both]), torch.cat([b for _, b in both]))
        for level, both in pairs.items()
    }


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
        ValueError: If the distiller has no frequency attention on maps.
    """
    cfg = Config.fromfile(config_file(config))
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    if teacher_ckpt is not None:
        cfg.model.teacher_ckpt = teacher_ckpt
    loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    seen = [batch for _, batch in zip(range(batches), loader)]

    # Without these lines of initialisation, one for each parameter.
    MMLogger.get_instance('plot', log_level='WARNING')
    set_random_seed(cfg.get('randomness', {}).get('seed') or 0)
    # As the runner does.
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = MODELS.build(cfg.model)
    model.init_weights()
    before = compared_features(model, seen)
    trained = load_checkpoint_file(checkpoint)['state_dict']
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
    levels = {n: pair for n, pair in after.items() if pair[1].shape[-2:] != (1, 1)}
    if not filters or not levels:
        raise ValueError(
            f'{config}: no FrequencyAttention on maps larger than 1x1 in its '
            'distiller; expected a FAM-KD config.'
        )
    columns = max(len(filters), len(levels))
    figure, axes = plt.subplots(2, columns, figsize=(3.2 * columns, 6), squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, layer) in zip(axes[0], filters.items()):
        axis.set_visible(True)
        height, width = layer.grid
        extent = (-(width // 2) - 0.5, (width + 1) // 2 - 0.5)
        extent += ((height + 1) // 2 - 0.5, -(height // 2) - 0.5)
        image = axis.imshow(filter_magnitude(layer), extent=extent, cmap='magma')
        figure.colorbar(image, ax=axis, fraction=0.046)
        axis.set_title(f'filter, {height}x{width}\n{name}', fontsize=8)
        axis.set_xlabel('cycles per image')
    for axis, (name, (prediction, teacher)) in zip(axes[1], levels.items()):
        axis.set_visible(True)
        axis.plot(radial_spectrum(teacher), 'k-', label='teacher')
        axis.plot(radial_spectrum(before[name][0]), 'C1:', label='student, before')
        axis.plot(radial_spectrum(prediction), 'C0--', label='student, after')
        axis.set_yscale('log')
        axis.set_title(f'spectrum, {name}', fontsize=8)
        axis.set_xlabel('cycles per image')
        axis.legend(fontsize=7)
    for axis in axes.flat:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes[0]:
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel('cycles per image')
    axes[1][0].set_ylabel('root mean square amplitude')
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    return f'{out}: {len(filters)} filters, {len(levels)} spectra.'
