# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Files that the metrics of a config write, or remove."""

from __future__ import annotations

import re
from inspect import Parameter, signature
from typing import Any

from mmengine.registry import METRICS

from mmfakd.compat.config_literals import dicts_in

# What metrics of the OpenMMLab libraries call what they write.
_WRITTEN = re.compile(
    r'(out\w*|csv|save|collect)_(dir|path|prefix)|file_path|proposals_file'
)


def refuse_written_files(evaluator: Any, scope: str | None = None) -> None:
    """Refuse metrics that write files, for the evaluator of a stranger's work dir.

    They replace what is there, and some remove folders.

    Args:
        evaluator (dict | list): ``val_evaluator`` of its config.
        scope (str, optional): ``default_scope`` of its config. Defaults to the
            current one.

    Raises:
        ValueError: If it has one; it is named.
    """
    for metric in dicts_in(evaluator):
        for key, value in {**_defaults(metric, scope), **metric}.items():
            if _WRITTEN.fullmatch(str(key)) and value not in (None, Parameter.empty):
                raise ValueError(
                    f'its val_evaluator writes files, {metric.get("type")} with '
                    f'{key}={value!r}, and a work dir does not decide where. If you '
                    'trust it, give the config itself.'
                )


def _defaults(metric: dict[str, Any], scope: str | None) -> dict[str, Any]:
    """The arguments of a metric's class, and what they are if they are not given."""
    kind = metric.get('type')
    # MMEngine's `get` alone knows no default scope.
    with METRICS.switch_scope_and_registry(metric.get('_scope_', scope)) as registry:
        found = registry.get(kind) if isinstance(kind, str) else None
    taken = signature(found).parameters.values() if isinstance(found, type) else ()
    return {parameter.name: parameter.default for parameter in taken}
