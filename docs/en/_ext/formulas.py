# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Formulas as MathML, which browsers draw by themselves."""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(convert(node.astext()))


def _block(translator: Any, node: Any) -> None:
    formula = convert(node.astext(), display='block')
    translator.body.append(f'<div class="formula">{formula}</div>')


def _skip_children(draw: Any) -> Any:
    from docutils.nodes import SkipNode

    def visit(translator: Any, node: Any) -> None:
        draw(translator, node)
        raise SkipNode

    return visit


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer; ``html_math_renderer`` of ``conf.py`` names it."""
    app.add_html_math_renderer(
        'mathml', (_skip_children(_inline), None), (_skip_children(_block), None)
    )
    return dict(parallel_read_safe=True, parallel_write_safe=True)
