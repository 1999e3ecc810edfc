# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""List the layers of a model that can be recorded, and what they yield."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import Any

# Before any config is read: it makes `mmfakd::` inheritance known.
import mmfakd  # noqa: F401 isort: skip

from make_distill_config import parse_size
from mmengine.logging import MMLogger

from mmfakd.utils.pairing.candidate import build_model
from mmfakd.utils.pairing.features import find_features
from mmfakd.utils.pairing.input_size import choose_probe_size
from mmfakd.utils.pairing.write_config import tokens_text
from mmfakd.utils.probe_features import Call, Probe, TensorInfo, probe_features

_WIDEST = 48


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        help="a config file, 'package::folder/config.py' or a model-zoo name",
    )
    parser.add_argument(
        '--input-size',
        type=parse_size,
        metavar='HxW',
        help='size of the images (default: as in the training pipeline)',
    )
    parser.add_argument(
        '--depth',
        type=int,
        help='list only layers that are called within fewer than this many others',
    )
    return parser.parse_args(args)


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
                text += f' by tokens={tokens_text(feature.tokens)}'
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
    widths = [max(map(len, column)) for column in zip(*rows)]
    # Of the output alone some are very long.
    widths[3] = min(widths[3], _WIDEST)
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in rows
    )


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


def main(args: list[str] | None = None) -> None:
    """Build the model, run it and print its layers."""
    options = parse_args(args)
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('list_layers', log_level='ERROR')
    try:
        model, cfg = build_model(options.config)
        size = options.input_size or choose_probe_size(cfg)
        probe = probe_features(model, size)
    except (OSError, ModuleNotFoundError, ValueError) as error:
        hint = ' Another size: --input-size HxW.' * ('fails on images' in str(error))
        sys.exit(f'list_layers: {error}{hint}')
    print(
        f'{options.config}: {type(model).__name__}, images of {size[0]}x{size[1]}.\n'
        'N is the size of the batch, [0] and [1] are parts of a tuple (data_idx),\n'
        '| stands between calls with different results (record_idx).'
    )
    print(format_layers(probe, options.depth))
    if probe.note:
        print(f'The heads did not run on a dummy batch and are left out: {probe.note}')


if __name__ == '__main__':
    main()
