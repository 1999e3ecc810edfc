# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the backbones of this package have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

BATCH_NORM = dict(type='BN')
_NORM_INIT = dict(type='Constant', layer='_BatchNorm', val=1)
# Normal, with the variance 2 / (k * k * channels of the output).
HE_INIT: list[dict] = [dict(type='Kaiming', layer='Conv2d'), _NORM_INIT]
# How torch itself initialises convolutions, but not mmcv's ConvModule.
TORCH_INIT: list[dict] = [
    dict(
        type='Kaiming',
        layer='Conv2d',
        a=5**0.5,
        mode='fan_in',
        nonlinearity='leaky_relu',
        distribution='uniform',
    ),
    _NORM_INIT,
]


class StagedBackbone(BaseBackbone):
    """Modules that run one after the other, and return what is asked for.

    Args:
        modules (Mapping[str, nn.Module]): Name and module, in order. Those whose name
            begins with ``layer``, and what follows them, are stages.
        out_indices (Sequence[int]): The stages, from 0, whose outputs are returned.
        init_cfg (dict | list[dict], optional): MMEngine's initialisation config.

    Shapes:
        - Input: (N, C, H, W).
        - Output: tuple of (N, C_i, H_i, W_i), one for each of ``out_indices``.

    Raises:
        ValueError: If ``out_indices`` names a stage that does not exist.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        out_indices: Sequence[int],
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        names = list(modules)
        self.num_stem = next(i for i, n in enumerate(names) if n.startswith('layer'))
        self.out_indices = check_out_indices(
            type(self).__name__, out_indices, names[self.num_stem :]
        )
        for name, module in modules.items():
            self.add_module(name, module)
            # MMEngine would otherwise go on with a ConvModule's own initialisation
            # after that of `init_cfg`.
            module.is_init = True  # type: ignore[assignment]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the chosen stages.

        Args:
            x (Tensor): Images, shape (N, C, H, W).

        Returns:
            tuple[Tensor, ...]: Shallow to deep.
        """
        outs = []
        for index, module in enumerate(self.children(), -self.num_stem):
            x = module(x)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs)


def check_out_indices(
    name: str, out_indices: Sequence[int], stages: Sequence[str]
) -> tuple[int, ...]:
    """Check that the stages asked for exist.

    Args:
        name (str): Of the backbone, for the message.
        out_indices (Sequence[int]): Numbers of stages.
        stages (Sequence[str]): Names of all stages.

    Returns:
        tuple[int, ...]: ``out_indices``.

    Raises:
        ValueError: If there is none or one of them is no number of a stage.
    """
    if not out_indices or not set(out_indices) <= set(range(len(stages))):
        raise ValueError(
            f'{name} got out_indices={tuple(out_indices)}, expected numbers from 0 to '
            f'{len(stages) - 1}, for the stages {", ".join(stages)}.'
        )
    return tuple(out_indices)
