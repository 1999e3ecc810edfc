# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Every shipped config: parses, builds, learns, and is listed where users look."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from tests.toy import step, without_gradient

REPOSITORY = Path(__file__).parents[1]
LEAVES = sorted((REPOSITORY / 'configs' / 'fakd').rglob('*.py'))
NAMES = [path.stem for path in LEAVES]


def metafile_entries(folder):
    with open(folder / 'metafile.yml') as file:
        return {entry['Name']: entry for entry in yaml.safe_load(file)['Models']}


def test_there_are_configs():
    assert len(LEAVES) >= 6


def test_names_are_unique_and_lower_case():
    every = [p.stem for p in (REPOSITORY / 'configs' / 'fakd').rglob('*.py')]
    assert [name for name, count in Counter(every).items() if count > 1] == []
    assert [name for name in every if name != name.lower()] == []


def test_model_index_lists_every_metafile():
    with open(REPOSITORY / 'model-index.yml') as file:
        listed = yaml.safe_load(file)['Import']
    found = [
        path.relative_to(REPOSITORY).as_posix()
        for path in sorted((REPOSITORY / 'configs').rglob('metafile.yml'))
    ]
    assert sorted(listed) == found


@pytest.mark.parametrize('path', LEAVES, ids=NAMES)
def test_leaf_is_short_and_listed(path):
    assert len(path.read_text().splitlines()) <= 40
    entry = metafile_entries(path.parent)[path.stem]
    assert REPOSITORY / entry['Config'] == path
    readme = (path.parent / 'README.md').read_text()
    rows = [line for line in readme.splitlines() if line.startswith('|')]
    assert any(re.search(rf'\b{path.stem}\.py\b', row) for row in rows)
    if 'model.teacher' in path.read_text() or path.stem.count('_') > 3:
        pair = entry['Metadata']
        for role in ('Teacher', 'Student'):
            assert (REPOSITORY / pair[role]['Config']).is_file()


@pytest.mark.parametrize('path', LEAVES, ids=NAMES)
def test_bases_are_ours_or_stock(path):
    text = path.read_text()
    assert 'mmfakd::' not in text
    assert 'find_unused_parameters' not in text


@pytest.mark.parametrize('path', LEAVES, ids=NAMES)
def test_config_takes_two_steps_on_its_own_data(path):
    cfg = Config.fromfile(path)
    assert cfg.get('find_unused_parameters') is None
    init_default_scope(cfg.default_scope)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    model_cfg = cfg.model
    model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(model_cfg)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _, data in zip(range(2), loader):
        optimizer.zero_grad()
        losses = step(model, data)
        assert all(torch.isfinite(value).all() for value in losses.values())
        assert without_gradient(model) == []
        optimizer.step()
