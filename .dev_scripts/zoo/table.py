# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The table of the zoo, and what was found out about its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = REPOSITORY / '.dev_scripts' / 'zoo.yml'
WEIGHTS = REPOSITORY / 'weights'
# Files that are too large for the package wait here for a server.
LARGE = REPOSITORY / 'work_dirs' / 'zoo'
LOGS = REPOSITORY / 'docs' / 'en' / 'results' / 'logs'
FACTS = LOGS / 'zoo.json'
# Of all files in WEIGHTS.
MOST_BYTES = 12_000_000
# Name of a metric -> name in logs, factor to percent, decimals.
METRICS: dict[str, tuple[str, int, int]] = {
    'Top 1 Accuracy': ('accuracy/top1', 1, 2),
    'box AP': ('coco/bbox_mAP', 100, 1),
}


def read_table() -> dict[str, dict[str, Any]]:
    """Read what the zoo has.

    Returns:
        dict: By the folders of ``configs/fakd``.
    """
    return yaml.safe_load(TABLE.read_text())


def read_facts() -> dict[str, Any]:
    """Read what is known of the published files.

    Returns:
        dict: ``weights`` by name of their model; ``memory`` of a training step, in
        bytes; ``teachers`` of others by file.
    """
    known = json.loads(FACTS.read_text()) if FACTS.is_file() else {}
    return {'weights': {}, 'memory': {}, 'teachers': {}, **known}


def write_facts(facts: dict[str, Any]) -> None:
    """Write them.

    Args:
        facts (dict): As :func:`read_facts` gives them.
    """
    facts = {key: dict(sorted(value.items())) for key, value in facts.items()}
    FACTS.write_text(json.dumps(facts, indent=1) + '\n')


def percent(value: float, metric: str) -> float:
    """Round a score of a log as tables show it.

    Args:
        value (float): The score.
        metric (str): Which of ``METRICS`` it is.

    Returns:
        float: It in percent.
    """
    _, factor, decimals = METRICS[metric]
    return round(factor * value, decimals)
