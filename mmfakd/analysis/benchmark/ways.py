# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is chosen by measurement, against the ways that are usually the fastest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmfakd.models.layers import FrequencyAttention
from mmfakd.ops.choice_file import ChoiceFile
from mmfakd.ops.chooser import CHOOSER, Chooser
from mmfakd.ops.frequency_filter import FREQUENCY_FILTER
from mmfakd.ops.operation import Operation
from mmfakd.ops.window_attention import WINDOW_ATTENTION

from .measure import Case, Options, Side, measure
from .suites import Size, layer_cases, layer_sides


def way_cases(options: Options, batch_size: int | None = None) -> list[Case]:
    """Let each layer choose among its ways, and compare with the usual one.

    Args:
        options (Options): Device and precision.
        batch_size (int, optional): Batch size in place of each case's own.

    Returns:
        list[Case]: One for each layer and size, with the usual way and the chosen one,
        if that is another.
    """
    return [
        replace(case, measure=measure_choice)
        for case in layer_cases(options, batch_size, _sides)
    ]


def measure_choice(case: Case, options: Options) -> dict:
    """Choose, then measure the ways against one another.

    Args:
        case (Case): A layer at one size.
        options (Options): How to measure.

    Returns:
        dict: As of :func:`~.measure.measure`, with ``seconds`` that choosing took.
    """
    sides = case.build()
    found = measure(replace(case, build=lambda: sides, measure=None), options)
    return dict(found, seconds=sides[-1].run.seconds)  # type: ignore[attr-defined]


class _Run:
    """A pass of a layer in one way; knows what choosing it took."""

    def __init__(self, run: Callable[[], Any], ways: dict[str, str], seconds: float):
        self.run, self.ways, self.seconds = run, ways, seconds

    def __call__(self) -> None:
        with CHOOSER.forcing(self.ways):
            self.run()


def _sides(kind: Callable[..., nn.Module], size: Size, options: Options) -> list[Side]:
    side = layer_sides(kind, size, options)[0]
    operation = FREQUENCY_FILTER if kind is FrequencyAttention else WINDOW_ATTENTION
    usual, chosen, seconds = _choose(operation, side)
    names = {'usual': usual}
    if chosen != usual:
        names['chosen'] = chosen
    return [
        replace(
            side,
            name=f'{label}: {way}',
            run=_Run(side.run, {operation.name: way}, seconds),
        )
        for label, way in names.items()
    ]


def _choose(operation: Operation, side: Side) -> tuple[str, str, float]:
    """Names of the usual and of the fastest way, and the seconds that this took."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        chooser = Chooser(ChoiceFile(Path(folder, 'ways.json')), mode='measure')

        def note(*inputs: Any) -> str:
            reference = operation.reference(*inputs)
            found[:] = reference, chooser.choose(operation, inputs)
            return reference

        with CHOOSER.forcing({operation.name: note}):
            side.run()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found[0], found[1], chooser.seconds
