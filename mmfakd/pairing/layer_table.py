# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""List the layers of a model that can be recorded, and what they yield."""

from __future__ import annotations

from typing import Any

from mmengine.logging import MMLogger

from mmfakd.messages import aligned

from .candidate import Candidate
from .code import as_code
from .features import find_features
from .input_size import choose_probe_size
from .probe import Call, Probe, TensorInfo

_WIDEST = 48


def format_layers(probe: Probe, depth: int | None = None) -> str:
    """Draw the table of layers.

    Args:
        probe (Probe): A probe of the model.
        depth (int, optional): As on the command line.

    Returns:
        str: A line for each layer, in the order of the first calls.
    """
    maps: dict[int, list[str]] = {}
    for feature in find_features(probe):
        if len(feature.info.shape) == 3 or feature.tokens:
            text = '{} x {} x {}'.format(feature.channels, *feature.size)
            if feature.tokens:
                text += f' by tokens={as_code(feature.tokens)}'
            maps.setdefault(feature.call.order, []).append(text)
    calls: dict[str, list[Call]] = {}
    for call in probe.calls:
        if depth is None or len(call.path) < depth:
            calls.setdefault(call.name, []).append(call)
    rows = [('layer', 'type', 'calls', 'output', 'map')]
    for name, found in calls.items():
        columns = (
            [format_output(call.output, probe) for call in found],
            [', '.join(maps.get(call.order, [])) for call in found],
        )
        # Calls with equal results are told once.
        texts = [' | '.join(c if len(set(c)) > 1 else c[:1]) for c in columns]
        rows.append((name, found[0].kind, str(len(found)), texts[0], texts[1]))
    # Of the output alone some are very long.
    return aligned(rows, _WIDEST)


def format_output(output: Any, probe: Probe) -> str:
    """Write what a layer returned.

    Args:
        output (Any): ``Call.output``.
        probe (Probe): The probe, whose batch size becomes ``N``.

    Returns:
        str: Shapes, with the ``data_idx`` of each part of a tuple.
    """
    if isinstance(output, TensorInfo):
        batch = probe.input_shape[0]
        sizes = [str(n) for n in output.shape]
        if sizes and output.shape[0] == batch:
            sizes[0] = 'N'
        return f'({", ".join(sizes)})'
    if isinstance(output, tuple):
        if all(isinstance(part, int) for part in output):
            return str(output)
        parts = (format_output(part, probe) for part in output)
        return '  '.join(f'[{i}] {part}' for i, part in enumerate(parts))
    return str(output)


def layer_table(
    config: str, input_size: tuple[int, int] | None = None, depth: int | None = None
) -> str:
    """Build a model, run it and list its layers; of a distillation its student.

    Args:
        config (str): Path of a config, or its name.
        input_size (tuple[int, int], optional): Height and width of the images.
        depth (int, optional): List only layers that are called within fewer than this
            many others.

    Returns:
        str: The table, with what it is of.

    Raises:
        FileNotFoundError: If the model is not known.
        ValueError: If it cannot be built or run.
    """
    MMLogger.get_instance('layers', log_level='ERROR')
    candidate = Candidate(config)
    size = input_size or choose_probe_size(candidate.cfg)
    probe = candidate.run(size)
    kind = type(candidate.model).__name__
    if candidate.distillation:
        kind += f' (student of a {candidate.distillation})'
    lines = [
        f'{config}: {kind}, images of {size[0]}x{size[1]}.',
        'N is the size of the batch, [0] and [1] are parts of a tuple (data_idx),',
        '| stands between calls with different results (record_idx).',
        format_layers(probe, depth),
    ]
    if probe.note:
        lines.append(
            'The heads did not run on a dummy batch and are left out: ' + probe.note
        )
    return '\n'.join(lines)
