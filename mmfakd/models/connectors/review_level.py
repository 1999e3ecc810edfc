# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""One level of a review pyramid."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from typing import Any

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmfakd.ops.compiling import is_compiling
from mmfakd.ops.maps import as_map, check_real, resize

# The connectors' defaults.
NORM = {'type': 'BN'}
ACT = {'type': 'ReLU'}


class ReviewLevel(BaseModule):
    r"""Predict the teacher's feature of one level, with the deeper level's help.

    .. math::
        Z &= \mathrm{fusion}\big(m(X),\; \mathrm{resize}(m'(X_{deeper}))\big) \\
        \hat{T} &= \mathrm{act}(\mathrm{norm}(\mathrm{transform}(\mathrm{resize}(Z))))

    with :math:`m, m'` a 1x1 convolution with norm and activation where the channels
    differ, else the identity, and nearest-neighbour resizing. The deepest level has
    no fusion. Only blocks that learn are built.

    Source: the review pyramid of *Frequency Attention for Knowledge Distillation*
    (arXiv 2403.05894) and of *Distilling Knowledge via Knowledge Review*
    (arXiv 2104.09044).

    Args:
        in_channels (int): Channels Ci of the student's feature.
        mid_channels (int): Channels Cm that fusion and transform work on.
        transform (nn.Module): Maps (N, Cm, H, W) to the teacher's channels Co.
        out_channels (int): Channels Co of the prediction.
        fusion (nn.Module, optional): Maps two features (N, Cm, H, W) to one. With an
            attribute ``resizes`` that is true, it takes the deeper one as it comes,
            (N, Cm, H', W'). None at the deepest level.
        deeper_channels (int, optional): Channels Cd of the deeper level's fused
            feature. Needed with ``fusion``.
        size (tuple[int, int], optional): Height and width of the prediction. None
            keeps the student's size times ``scale``.
        scale (float): Size of the prediction over that of the student's feature.
            Defaults to 1.0.
        always_match (bool): Whether the student's feature goes through the 1x1 block
            even if Ci = Cm. Defaults to False.
        norm_cfg (dict, optional): Norm of the 1x1 blocks and the prediction.
        match_act_cfg (dict, optional): Activation of the 1x1 blocks.
        act_cfg (dict, optional): Activation of the prediction.
        with_cp (bool): Whether only inputs and outputs of the level are kept for the
            backward pass, which computes all in between again. Norm statistics are
            updated once. Defaults to False.

    Shapes:
        - x: (N, Ci, H, W); deeper: (N, Cd, H', W').
        - Output: the prediction (N, Co, h, w) and the fused feature (N, Cm, h, w)
          for the next shallower level.

    Raises:
        ValueError: In ``forward``, from fusion, transform or norm, for features they
            cannot take.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        transform: nn.Module,
        out_channels: int,
        fusion: nn.Module | None = None,
        deeper_channels: int | None = None,
        size: tuple[int, int] | None = None,
        scale: float = 1.0,
        always_match: bool = False,
        norm_cfg: dict | None = None,
        match_act_cfg: dict | None = None,
        act_cfg: dict | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.size = size
        self.scale = scale
        self.with_cp = with_cp
        self.match: nn.Module = nn.Identity()
        if always_match or in_channels != mid_channels:
            self.match = _match_block(
                in_channels, mid_channels, norm_cfg, match_act_cfg
            )
        self.fusion = fusion
        if fusion is not None:
            assert deeper_channels is not None
            self.match_deeper: nn.Module = nn.Identity()
            if deeper_channels != mid_channels:
                self.match_deeper = _match_block(
                    deeper_channels, mid_channels, norm_cfg, match_act_cfg
                )
        self.transform = transform
        self.norm = _norm(norm_cfg, out_channels)
        self.act = _act(act_cfg)

    def forward(self, x: Tensor, deeper: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict the teacher's feature.

        Args:
            x (Tensor): The student's feature (N, Ci, H, W).
            deeper (Tensor, optional): The deeper level's fused feature
                (N, Cd, H', W'). Needed where the level has a fusion.

        Returns:
            tuple[Tensor, Tensor]: Prediction (N, Co, h, w) and fused feature
            (N, Cm, h, w), before the transform.

        Raises:
            ValueError: From fusion, transform or norm, for features they cannot
                take.
        """
        if not (self.with_cp and torch.is_grad_enabled()):
            return self._predict(x, deeper)
        contexts: dict[str, Any] = {}
        # A compiler keeps track of statistics itself.
        if not is_compiling():
            contexts['context_fn'] = lambda: (nullcontext(), _FrozenStatistics(self))
        return checkpoint(self._predict, x, deeper, use_reentrant=False, **contexts)

    def _predict(self, x: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.match(x)
        if self.fusion is not None:
            assert deeper is not None
            deeper = self.match_deeper(deeper)
            # A fusion that resizes by itself can do so where it costs least.
            if not getattr(self.fusion, 'resizes', False):
                deeper = resize(deeper, x.shape[-2:])
            x = self.fusion(x, deeper)
        x = resize(x, self.size or self._scaled(x))
        return self.act(self.norm(self.transform(x))), x

    def _scaled(self, x: Tensor) -> tuple[int, ...]:
        """Size of the prediction where none is fixed."""
        # Halves up, as by convolutions and poolings of stride two.
        return tuple(max(1, int(n * self.scale + 0.5)) for n in x.shape[-2:])


def checked_map(feature: Tensor, channels: int) -> Tensor:
    """View a feature as a map and check its dtype and channels.

    Args:
        feature (Tensor): Feature of shape (N, C, H, W) or (N, C).
        channels (int): The number C to expect.

    Returns:
        Tensor: The feature, of shape (N, C, H, W); H = W = 1 for (N, C).

    Raises:
        TypeError: For complex features and integers.
        ValueError: For anything else. The messages say got, expected and what to
            do; the caller puts before them which feature they are about.
    """
    if not isinstance(feature, Tensor):
        raise ValueError(
            f'got a {type(feature).__name__}, expected a tensor: choose the map with '
            "the recorder's `data_idx`."
        )
    check_real('', feature)
    if feature.ndim not in (2, 4):
        raise ValueError(
            f'got a feature of shape {tuple(feature.shape)}, expected (N, C, H, W) or '
            '(N, C): record a layer that yields maps, or say with `tokens` of the '
            'level how tokens become a map.'
        )
    if feature.shape[1] != channels:
        last = feature.ndim == 4 and feature.shape[-1] == channels
        hint = ' Its channels may be last: tokens=dict(channels_last=True).' * last
        raise ValueError(
            f'got {feature.shape[1]} channels (a feature of shape '
            f'{tuple(feature.shape)}), expected {channels}: correct `in_channels` or '
            f'the recorded layer.{hint}'
        )
    return as_map(feature)


def locate(
    error: TypeError | ValueError, place: str, batch: int
) -> TypeError | ValueError:
    """Say in an error which feature it is about.

    Args:
        error (TypeError | ValueError): What a level raised.
        place (str): Name of the feature.
        batch (int): Batch size N.

    Returns:
        TypeError | ValueError: The error to raise, of the same kind.
    """
    kind = TypeError if isinstance(error, TypeError) else ValueError
    hint = ''
    if batch == 1 and kind is ValueError:
        hint = (
            ' If this is a batch norm that met a 1x1 map: it needs at least two '
            'images. Drop the last, incomplete batch (drop_last=True) or choose '
            'another norm_cfg.'
        )
    return kind(f'{place}: {str(error).rstrip(".")}.{hint}')


class _FrozenStatistics:
    """Let batch norms normalise by the batch and leave their statistics as they are.

    It may be entered again, as a graph that is kept may have several backward passes.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kept: list[tuple[_BatchNorm, Any, Any]] = []

    def __enter__(self) -> None:
        self._kept = [
            (norm, norm.momentum, norm.num_batches_tracked)
            for norm in self._module.modules()
            if isinstance(norm, _BatchNorm)
        ]
        for norm, _, count in self._kept:
            # Without statistics it would save other tensors than the first time. SyncBN
            # insists on a count: it gets one to throw away.
            spare = None if count is None else count.clone()
            norm.momentum, norm.num_batches_tracked = 0.0, spare

    def __exit__(self, *error: Any) -> None:
        for norm, momentum, count in self._kept:
            norm.momentum, norm.num_batches_tracked = momentum, count


def _match_block(
    in_channels: int, out_channels: int, norm_cfg: dict | None, act_cfg: dict | None
) -> nn.Module:
    """1x1 convolution, norm and activation.

    Not mmcv's ConvModule, whose ``init_weights`` would replace this init.
    """
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=norm_cfg is None)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    layers = OrderedDict(
        conv=conv, norm=_norm(norm_cfg, out_channels), act=_act(act_cfg)
    )
    return nn.Sequential(layers)


def _norm(norm_cfg: dict | None, channels: int) -> nn.Module:
    """The norm of a config; None is the identity."""
    norm = build_norm_layer(norm_cfg, channels)[1] if norm_cfg else nn.Identity()
    # Those of channels, as mmpretrain's, derive from it with a forward of their own.
    if isinstance(norm, nn.LayerNorm) and type(norm).forward is nn.LayerNorm.forward:
        raise ValueError(
            f'norm_cfg={norm_cfg!r}: a LayerNorm normalises the last dimension, which '
            "of a map is its rows. Take dict(type='GN', num_groups=1), or "
            "dict(type='mmpretrain.LN2d'), which normalises the channels of each pixel."
        )
    return norm


def _act(act_cfg: dict | None) -> nn.Module:
    """The activation of a config; None is the identity."""
    return build_activation_layer(act_cfg) if act_cfg else nn.Identity()
