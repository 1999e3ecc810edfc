# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether features of equal shape have equal meaning."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mmengine.logging import print_log
from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn

from mmfakd.models.distillers.any_distiller import compared_levels
from mmfakd.models.distillers.check_layer_names import MODULE_RECORDERS

# Their features are of whole images, although they stand in a head of regions.
_WHOLE_IMAGE = ('semantic_head', 'glbctx_head')
# Where DETR's kind and MaskFormer's keep what is computed for each object query.
_QUERY_MODELS = ('DetectionTransformer', 'MaskFormerHead')
_QUERY_PARTS = (
    *('decoder', 'transformer_decoder', 'bbox_head', 'cls_embed', 'mask_embed'),
    'query_embed',
)


def check_correspondence(
    distiller: ConfigurableDistiller, student: nn.Module, teacher: nn.Module
) -> None:
    """Check that losses do not compare different regions or queries one by one.

    Features of a two-stage detector's RoI head are of the boxes that its own region
    proposals gave, in training a random sample of them: row by row, student and
    teacher look at different places. Object queries of DETR's kind have no order that
    two models share.

    Args:
        distiller (ConfigurableDistiller): The distiller. One with deliveries is left
            alone, as these can give both the same regions.
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.

    Raises:
        ValueError: If a loss compares features of regions. For queries there is a
            warning.
    """
    if distiller.deliveries.deliveries:
        return
    for name, levels in compared_levels(distiller).items():
        sources: dict[bool, str] = {}
        regions: set[bool] = set()
        queries: set[bool] = set()
        for level in levels:
            recorder = level.recorder_of(distiller)
            if type(recorder).__name__ not in MODULE_RECORDERS:
                continue
            side = level.from_student
            sources[side] = recorder.source
            model = student if side else teacher
            if _is_of_regions(model, recorder.source):
                regions.add(side)
            if _is_of_queries(model, recorder.source):
                queries.add(side)
        told = f'{name} compares {sources.get(True)!r} of the student with '
        told += f'{sources.get(False)!r} of the teacher'
        if len(regions) == 2:
            raise ValueError(
                f'{told}, features of regions: each model has its own region proposals '
                'and samples, so that row by row they are of different boxes. Record '
                'what is of the whole image (neck, backbone, rpn_head), or give both '
                'the same regions by `distill_deliveries` of the distiller.'
            )
        if len(queries) == 2:
            print_log(
                f'{told}, features of object queries: two models have their queries in '
                'different orders, so that row by row they are of different objects. '
                'Record what is of the whole image (backbone, neck, encoder), or share '
                'the queries (initialise the student with those of the teacher).',
                logger='current',
                level=logging.WARNING,
            )


def _is_of_regions(model: nn.Module, source: str) -> bool:
    parts = source.split('.')
    inside = any(
        base.__name__.endswith('RoIHead')
        for module in _around(model, parts)
        for base in type(module).__mro__
    )
    return inside and not any(part in _WHOLE_IMAGE for part in parts)


def _is_of_queries(model: nn.Module, source: str) -> bool:
    parts = source.split('.')
    inside = any(
        base.__name__ in _QUERY_MODELS
        for module in _around(model, parts)
        for base in type(module).__mro__
    )
    return inside and any(part in _QUERY_PARTS for part in parts)


def _around(model: nn.Module, parts: list[str]) -> Iterator[nn.Module]:
    """A layer and all modules that it stands in."""
    module: object = model
    yield model
    for part in parts:
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            return
        yield module
