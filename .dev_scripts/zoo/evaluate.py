# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Scores of published files, by the stock libraries and from the file alone."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmfakd.checkpoints.config_text import read_config_text
from mmfakd.compat import load_checkpoint_file

from .table import METRICS, percent


def evaluate(file: Path, metric: str) -> float:
    """Evaluate a published file on the test set that its config names.

    Args:
        file (Path): The file. Data are looked for below the present folder.
        metric (str): Which of ``METRICS``.

    Returns:
        float: The score in percent, rounded as in tables.
    """
    cfg = read_config_text(load_checkpoint_file(str(file))['meta']['cfg'])
    return test(cfg, file, metric)


def test(cfg: Config, file: Path, metric: str) -> float:
    """Evaluate a file with a config.

    Args:
        cfg (Config): Of a plain model.
        file (Path): Its weights.
        metric (str): Which of ``METRICS``.

    Returns:
        float: The score in percent, rounded as in tables.
    """
    # Workers would take longer to start than they save.
    loader: dict[str, Any] = cfg.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    level = logging.root.manager.disable
    with TemporaryDirectory() as folder:
        logging.disable(logging.WARNING)
        try:
            cfg.update(work_dir=folder, load_from=str(file), resume=False)
            cfg['experiment_name'] = f'{file.stem}_{Path(folder).name}'
            found = Runner.from_cfg(cfg).test()
        finally:
            logging.disable(level)
    return percent(found[METRICS[metric][0]], metric)
