# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the layers have found to be their fastest ways, in the log."""

from __future__ import annotations

from mmengine.logging import print_log

from mmfakd.ops.chooser import CHOOSER
from mmfakd.ops.compiling import is_compiling


def tell_choices() -> None:
    """Log what has been chosen by measurement since the last step, if anything."""
    if is_compiling():
        return
    news = CHOOSER.tell()
    if news:
        print_log(news, logger='current')
