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
    stem, ending = osp.splitext(template)
    parts = map(re.escape, re.split(r'\{.*?\}', stem))
    return r'\d+'.join(parts) + added + re.escape(ending)
