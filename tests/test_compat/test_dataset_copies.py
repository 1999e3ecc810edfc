# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import gc

from mmengine.dataset import BaseDataset

from mmfakd.compat.dataset_copies import forget_copied_objects


class Numbers(BaseDataset):
    def load_data_list(self):
        return [dict(number=number) for number in range(5)]


class Transform:
    def __init__(self, name):
        self.name = name

    def __call__(self, results):
        return dict(results, name=self.name)


def test_subsets_have_their_own_pipelines():
    """Also where what was copied before is gone, and its memory is used again."""
    for turn in range(200):
        dataset = Numbers(pipeline=[Transform(turn)], serialize_data=False)
        dataset.extra = [Transform(f'extra {turn}') for _ in range(turn % 7)]
        part = dataset.get_subset([3, 1])
        assert [part[i] for i in range(2)] == [
            dict(number=number, sample_idx=i, name=turn)
            for i, number in enumerate((3, 1))
        ]
        assert [one.name for one in part.extra] == [f'extra {turn}'] * (turn % 7)
        del dataset, part
        gc.collect(0)


def test_nothing_is_remembered():
    dataset = Numbers(serialize_data=False)
    first, second = dataset.get_subset(2), dataset.get_subset(2)
    assert first.pipeline is not second.pipeline
    assert first.pipeline is not dataset.pipeline


def test_shim_is_repeatable():
    before = BaseDataset._copy_without_annotation
    forget_copied_objects()
    assert BaseDataset._copy_without_annotation is before
