# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Which part of a training step an operation belongs to."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Iterable
from types import FrameType

import torch
from torch import nn

NETWORKS = 'student and teacher'
# The parts, in the order of tables.
PARTS = (
    NETWORKS,
    'batch',
    'match',
    'attention',
    'transform',
    'product',
    'norm',
    'resize',
    'losses',
    'recorders',
    'gradients',
    'optimizer',
    'hooks',
    'other',
)
# Beginnings of names of Python's modules, the longer ones first.
_CODE = {
    'mmfakd.ops.spectral_transform': 'transform',
    'mmfakd.ops.spectral_filter': 'product',
    'mmfakd.ops.frequency_filter': 'product',
    'mmfakd.ops.filter_tables': 'product',
    'mmfakd.ops.pixel_filter': 'product',
    'mmfakd.ops.filter_storage': 'product',
    'mmfakd.models.layers.frequency_attention': 'product',
    'mmfakd.models.layers.conv_transform': 'product',
    'mmfakd.ops.blockwise_window_attention': 'attention',
    'mmfakd.ops.triton_window_attention': 'attention',
    'mmfakd.ops.window_attention': 'attention',
    'mmfakd.models.layers.local_cross_attention': 'attention',
    'mmfakd.models.layers.attention_based_fusion': 'attention',
    'mmfakd.models.connectors.review_level': 'resize',
    'mmfakd.models.distillers': 'losses',
    'mmfakd.models.losses': 'losses',
    'mmrazor.models.losses': 'losses',
    'mmrazor.models.task_modules.recorder': 'recorders',
    'mmfakd.models.algorithms.teacher_input': 'batch',
    'mmfakd.models.algorithms.feature_distill': 'losses',
    'mmengine.model.base_model.data_preprocessor': 'batch',
    # Sums of losses; what the model does is found further inside.
    'mmengine.model.base_model.base_model': 'losses',
    'mmengine.optim': 'optimizer',
    'torch.optim': 'optimizer',
    'mmengine.hooks': 'hooks',
    'mmengine.logging': 'hooks',
    'mmfakd.engine.hooks': 'hooks',
}
# Names of submodules within a connector; what they call belongs to them.
_CONNECTOR = {'match': 'match', 'match_deeper': 'match', 'norm': 'norm', 'act': 'norm'}


class StepParts:
    """Finds the part of a step that is running.

    In the forward pass, and in backward passes written in Python, from the innermost
    frame that tells it: by its code, or by the module whose method it is. In
    PyTorch's own backward passes from the operation that they belong to, by the
    number that autograd gives to both. Where it adds up the gradients of a feature
    that is used twice, the part is ``'gradients'``.

    Args:
        networks (Iterable[nn.Module]): Student and teacher.
        connectors (Iterable[nn.Module]): What predicts the teacher's features.

    Raises:
        RuntimeError: If this PyTorch does not tell which backward pass is running.
    """

    def __init__(
        self, networks: Iterable[nn.Module], connectors: Iterable[nn.Module] = ()
    ) -> None:
        if not hasattr(torch._C, '_current_autograd_node'):
            raise RuntimeError(
                f'torch {torch.__version__} does not tell which backward pass runs; '
                'the suite launches needs torch 2.3 or later.'
            )
        self._modules: dict[int, str] = {}
        for network in networks:
            self._modules.update((id(m), NETWORKS) for m in network.modules())
        for connector in connectors:
            for name, module in connector.named_modules():
                part = _CONNECTOR.get(name.rpartition('.')[2])
                if part is not None:
                    # A block's norm belongs to the block, which comes first.
                    for inner in module.modules():
                        self._modules.setdefault(id(inner), part)
        self._parts: dict[int, str] = {}

    def __call__(self, operation: str) -> str:
        """Find the part.

        Args:
            operation (str): Name of the operation that runs.

        Returns:
            str: One of ``PARTS``.
        """
        part = self._part_of(sys._getframe(2))
        if part != 'gradients':
            # Of a pass whose number is the last one given.
            self._parts.setdefault(torch.autograd._get_sequence_nr() - 1, part)
            return part
        node = torch._C._current_autograd_node()
        # PyTorch's own backward passes add nothing up, its engine does.
        if node is None or operation.startswith('aten.add'):
            return part
        if 'AccumulateGrad' in node.name():
            return part
        return self._part_of_forward(node._sequence_nr())

    def _part_of(self, frame: FrameType | None) -> str:
        while frame is not None:
            name = frame.f_globals.get('__name__', '')
            if name in ('torch.autograd', 'torch.autograd.graph'):
                # Whoever called the backward pass has no part in it.
                return 'gradients'
            for start, part in _CODE.items():
                if name.startswith(start):
                    return part
            part_of_module = self._modules.get(id(frame.f_locals.get('self')))
            if part_of_module is not None:
                return part_of_module
            frame = frame.f_back
        return 'other'

    def _part_of_forward(self, number: int) -> str:
        numbers = list(self._parts)
        place = bisect.bisect_right(numbers, number)
        return self._parts[numbers[place - 1]] if place else 'other'
