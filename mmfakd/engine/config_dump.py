# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of the configs that runs leave in their work dir."""

from __future__ import annotations

import os.path as osp
import re

from mmengine.config import Config

from mmfakd.model_zoo.config_sources import config_sources

# Behind the name of the config: of runs that are no training, whose config stays.
TEST, TEACHER = '.test', '.teacher'
# Of a training whose own config lies in the work dir.
_BESIDE = '.dump'


def name_dump(cfg: Config, run: str = '') -> None:
    """Choose the name under which MMEngine's runner dumps a config.

    The runner takes that of the config's file, and would overwrite this file, and what
    it inherits, in the work dir, and what a link of that name leads to.

    Args:
        cfg (Config): The config of a run, changed in place: its ``filename``.
        run (str): ``TEST`` or ``TEACHER``. Defaults to ``''``: a training, whose dump
            has the name of the config unless that file itself is there.
    """
    if cfg.filename is None:
        return
    folder, file = osp.split(cfg.filename)
    stem, ending = osp.splitext(file)
    stem += run
    sources = {osp.realpath(source) for source in config_sources(cfg.filename)}
    while (
        osp.islink(place := osp.join(cfg.work_dir, f'{stem}{ending}'))
        or osp.realpath(place) in sources
    ):
        stem += run or _BESIDE
    # A property without a setter; what is assigned becomes an entry of the config.
    object.__setattr__(cfg, '_filename', osp.join(folder, f'{stem}{ending}'))


def trained_name(path: str) -> str | None:
    """Read the name of a training's config from that of its dump.

    Args:
        path (str): A config in a work dir.

    Returns:
        str | None: The name, without folder and ending; None for a config that was no
        file, which is dumped under the time of the start, and for other runs.
    """
    name = osp.splitext(osp.basename(path))[0]
    if name.endswith((TEST, TEACHER)) or re.fullmatch(r'\d{8}_\d{6}', name):
        return None
    return re.sub(rf'({re.escape(_BESIDE)})+$', '', name)
