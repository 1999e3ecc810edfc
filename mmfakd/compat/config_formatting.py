# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A config is formatted once, not once more for every checkpoint."""

from __future__ import annotations

import functools
from typing import Any

# A training formats its config as it is given, as the runner has it, and as it resumes.
_KEPT = 8


def remember_formatted_configs() -> None:
    """Keep the last texts that MMEngine's ``Config.pretty_text`` has formatted.

    The runner asks for the text when it is made, when it logs and dumps its config, and
    for every checkpoint; MMEngine has yapf lay it out each time, which takes a third of
    a second for the config of a detector. The same content has the same text.

    This is for all versions of MMEngine 0.10 of either family.
    """
    from mmengine.config import Config

    original = Config.pretty_text.fget
    if hasattr(original, 'mmfakd'):
        return
    known: dict[str, str] = {}

    @functools.wraps(original)
    def pretty_text(self: Any) -> str:
        content = repr((self.to_dict(), getattr(self, '_format_python_code', True)))
        text = known.pop(content, None)
        if text is None:
            text = original(self)
        # The one asked for last is the last to go.
        known[content] = text
        while len(known) > _KEPT:
            del known[next(iter(known))]
        return text

    pretty_text.mmfakd = True  # type: ignore[attr-defined]
    Config.pretty_text = property(pretty_text)
