# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of checkpoints that are written after a template."""

from __future__ import annotations

import os.path as osp
import re


def name_pattern(template: str, added: str = '') -> str:
    """Describe the names that a template of a checkpoint hook gives.

    Args:
        template (str): Its ``filename_tmpl``, such as ``'epoch_{}.pth'``. Without
            braces it is a name itself.
        added (str): A regular expression for what stands before the ending. Defaults
            to ``''``: nothing.

    Returns:
        str: A regular expression for a whole name.
    """
    # A number may be the ending, of 'model.{}', and dots may stand in braces.
    stem, ending = osp.splitext(re.sub(r'\{.*?\}', '\0', template))
    return _with_numbers(stem) + added + _with_numbers(ending)


def _with_numbers(text: str) -> str:
    return r'\d+'.join(map(re.escape, text.split('\0')))
