# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Data workers of an iteration based loop start with the first batch."""

from multiprocessing import active_children

import pytest
import torch
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader, Dataset

from mmfakd.compat.late_batches import start_batches_late


class Numbers(Dataset):
    """Index and a random number of whoever loads it."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.cat([torch.tensor([float(index)]), torch.rand(1)])


def seventh(items):
    return torch.stack(items) + 7


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('generator', [None, 3])
def test_numbers_are_those_of_an_early_start(workers, generator):
    def numbers(begin):
        own = generator and torch.Generator().manual_seed(generator)
        torch.manual_seed(1)
        loader = DataLoader(Numbers(), 2, num_workers=workers, generator=own)
        batches = begin(loader)
        between = torch.rand(1)
        return [between, *(next(batches) for _ in range(3)), torch.rand(1)]

    early, late = numbers(iter), numbers(_InfiniteDataloaderIterator)
    assert all(torch.equal(one, other) for one, other in zip(early, late))


def test_the_loader_may_change_before_the_first_batch():
    before = set(active_children())
    loader = DataLoader(Numbers(), 2, num_workers=1)
    batches = _InfiniteDataloaderIterator(loader)
    assert set(active_children()) == before
    loader.collate_fn = seventh
    assert next(batches)[:, 0].tolist() == [7, 8]


def test_it_begins_again_at_the_end(monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    batches = _InfiniteDataloaderIterator(DataLoader(Numbers(), 3))
    firsts = [int(next(batches)[0, 0]) for _ in range(5)]
    assert firsts == [0, 3, 0, 3, 0]


def test_shim_is_repeatable():
    before = _InfiniteDataloaderIterator.__init__
    start_batches_late()
    assert _InfiniteDataloaderIterator.__init__ is before
