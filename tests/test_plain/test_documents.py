# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the documents show of a plain loop runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / 'docs/en/plain_pytorch.md'


def blocks(document):
    return re.findall(r'^```python\n(.*?)^```', document.read_text(), re.M | re.S)


def loader(size):
    images = torch.rand(4, 3, size, size)
    return DataLoader(TensorDataset(images, torch.arange(4)), batch_size=2)


def run(code, names):
    exec(compile(code, 'document', 'exec'), names)


def test_snippets_of_the_page_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = dict(loader=loader(64))
    found = blocks(DOCUMENT)
    assert len(found) >= 6
    for code in found:
        run(code, names)
    assert (tmp_path / 'student.pth').is_file()


@pytest.mark.parametrize('code', [
    code for code in blocks(REPOSITORY / 'README.md') if 'mmfakd.distill(' in code
])  # fmt: skip
def test_snippet_of_the_readme(code):
    torch.manual_seed(0)
    size = int(re.search(r'torch\.(?:zeros|rand|randn)\(\d+, 3, (\d+)', code)[1])
    names = dict(loader=loader(size))
    run(code, names)
    assert names['distillation'].first_step.levels
