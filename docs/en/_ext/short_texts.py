# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Numbers in tables and short pieces of code, which stay in one line."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

NUMBER = re.compile(r'[+-]?[\d.,]+( ?(%|ms|s|MB|GB|M))?([ (,±x-].*)?')
LONGEST = 24


class ShortTexts(SphinxTransform):
    """Give what should not be broken a class of its own."""

    default_priority = 210

    def apply(self, **_: Any) -> None:
        """Look through the tables and the code of a page."""
        for cell in self.document.findall(nodes.entry):
            text = cell.astext()
            if len(text) <= LONGEST and NUMBER.fullmatch(text):
                cell['classes'].append('number')
        for code in self.document.findall(nodes.literal):
            if len(code.astext()) <= LONGEST:
                code['classes'].append('short')


def setup(app: Any) -> dict[str, Any]:
    """Register the transform."""
    app.add_transform(ShortTexts)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
