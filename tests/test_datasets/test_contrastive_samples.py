# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Every negative is of another class, drawn evenly, and drawn again alike."""

from collections import Counter

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import TRANSFORMS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset, MultiLabelDataset

from mmfakd.datasets import ContrastiveSamples
from mmfakd.engine.hooks.epoch_seed_hook import seed_generators

PACK = [dict(type='PackInputs')]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


@TRANSFORMS.register_module(force=True)
class Unreadable(BaseTransform):
    """Squares up to a number are as files that are damaged."""

    def __init__(self, below, relabel=0):
        self.below, self.relabel = below, relabel

    def transform(self, results):
        if results['img'][0, 0, 0] < self.below:
            return None
        results['gt_label'] += self.relabel
        return results


class Squares(BaseDataset):
    """Grey squares of the classes given."""

    METAINFO = dict(classes=('zero', 'one', 'two'))

    def __init__(self, labels, pipeline=PACK, **kwargs):
        self.labels = labels
        kwargs.setdefault('serialize_data', False)
        super().__init__(ann_file='', pipeline=pipeline, **kwargs)

    def load_data_list(self):
        return [
            dict(img=np.full((2, 2, 3), i, np.uint8), gt_label=label)
            for i, label in enumerate(self.labels)
        ]


def even(**kwargs):
    return Squares([0, 1, 2] * 10, **kwargs)


def uneven():
    """1 zero, 4 ones and 6 twos in mixed order, as a subset of more."""
    whole = Squares([2, 0, 2, 1, 0, 2, 1, 1, 2, 2, 1, 2, 0, 2, 0], indices=12)
    return whole.get_subset([11, 0, 2, 3, 5, 6, 1, 7, 8, 9, 10])


def contrast(dataset, idx):
    return dataset[idx]['data_samples'].contrast_sample_idxs.tolist()


@pytest.mark.parametrize('make', [even, uneven])
def test_item_gains_its_number_and_negatives(make):
    plain = make()
    dataset = ContrastiveSamples(make(), num_negatives=5)
    labels = plain.get_gt_labels()
    assert len(dataset) == len(plain)
    for i in range(len(plain)):
        item, same = dataset[i], plain[i]
        assert torch.equal(item['inputs'], same['inputs'])
        sample = item['data_samples']
        assert torch.equal(sample.gt_label, same['data_samples'].gt_label)
        assert sample.sample_idx.dtype == torch.int64
        assert (sample.sample_idx.shape, int(sample.sample_idx)) == ((), i)
        assert sample.num_samples == len(plain)
        first, *negatives = sample.contrast_sample_idxs.tolist()
        assert first == i
        assert len(set(negatives)) == 5
        assert labels[i] not in labels[negatives]
        # All else is the wrapped data set's.
        added = {'contrast_sample_idxs', 'num_samples'}
        assert set(sample.all_keys()) == set(same['data_samples'].all_keys()) | added


def test_the_rest_of_the_data_set_passes_through():
    dataset = ContrastiveSamples(even(), num_negatives=2)
    assert dataset.metainfo == even().metainfo
    assert dataset.get_cat_ids(3) == even().get_cat_ids(3)
    np.testing.assert_equal(dataset.get_data_info(3), even().get_data_info(3))
    assert 'num_negatives=2' in repr(dataset) and 'Squares' in repr(dataset)
    assert contrast(dataset, -1)[0] == len(dataset) - 1


def test_all_negatives_where_that_many_are_asked_for():
    dataset = ContrastiveSamples(uneven(), num_negatives=10)
    zero = uneven().get_gt_labels().tolist().index(0)
    expected = [i for i in range(11) if i != zero]
    assert sorted(contrast(dataset, zero)[1:]) == expected


def test_with_replacement_where_there_are_fewer():
    dataset = ContrastiveSamples(uneven(), num_negatives=40)
    labels = uneven().get_gt_labels()
    negatives = contrast(dataset, labels.tolist().index(2))[1:]
    assert len(negatives) == 40
    assert set(labels[negatives]) == {0, 1}


def test_every_negative_is_as_likely():
    """Also when only part of many is drawn, where NumPy takes another algorithm."""

    class Many:
        metainfo = dict()

        def full_init(self):
            pass

        def __len__(self):
            return 12_000

        def get_data_info(self, idx):
            return dict(gt_label=idx % 3)

    for dataset, rounds in (
        (ContrastiveSamples(uneven(), num_negatives=3), 2000),
        (ContrastiveSamples(Many(), num_negatives=2000), 100),
    ):
        count = Counter()
        for _ in range(rounds):
            count.update(dataset._draw(0)[1:].tolist())
        label = dataset.get_cat_ids(0)
        others = [i for i in range(len(dataset)) if dataset.get_cat_ids(i) != label]
        assert set(count) <= set(others)
        expected = rounds * dataset.num_negatives / len(others)
        observed = np.array([count[i] for i in others])
        # Chi-square has about this mean, as draws exclude each other, and a standard
        # deviation of sqrt(2 n).
        spread = 1 - dataset.num_negatives / len(others)
        chi = ((observed - expected) ** 2 / expected).sum() / spread
        assert abs(chi - len(others)) < 6 * (2 * len(others)) ** 0.5


def test_numpy_s_seed_decides():
    dataset = ContrastiveSamples(even(), num_negatives=8)
    draws = []
    for seed in (1, 1, 2):
        seed_generators((seed,))
        draws.append([contrast(dataset, i) for i in (0, 7, 0)])
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0] != draws[0][2], 'drawn anew each time'


@pytest.mark.parametrize('workers', [0, 2])
def test_in_a_loader_and_from_a_config(workers):
    cfg = dict(
        batch_size=8,
        num_workers=workers,
        persistent_workers=False,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='mmfakd.ContrastiveSamples',
            num_negatives=6,
            dataset=dict(
                type='mmfakd.Digits',
                indices=list(range(0, 60, 2)),
                pipeline=PACK,
                lazy_init=True,
            ),
        ),
    )
    loader = Runner.build_dataloader(cfg, seed=0)
    labels = loader.dataset.dataset.get_gt_labels()
    seen = []
    for batch in loader:
        for sample in batch['data_samples']:
            first, *negatives = sample.contrast_sample_idxs.tolist()
            assert first == int(sample.sample_idx)
            assert labels[first] == int(sample.gt_label)
            assert labels[first] not in labels[negatives]
            seen.append(first)
    assert sorted(seen) == list(range(30))


def test_joined_data_sets_count_on():
    parts = [even(), Squares([2, 2, 0])]
    joined = ConcatDataset(parts, lazy_init=True)
    dataset = ContrastiveSamples(joined, num_negatives=20, lazy_init=True)
    dataset.full_init()
    labels = np.concatenate([part.get_gt_labels() for part in parts])
    for i in (0, 29, 30, 32):
        first, *negatives = contrast(dataset, i)
        assert first == i
        assert labels[i] not in labels[negatives]
    drawn = {j for _ in range(20) for j in contrast(dataset, 1)}
    assert {30, 31, 32} <= drawn


def test_bad_number():
    with pytest.raises(ValueError, match='num_negatives=0, expected a positive'):
        ContrastiveSamples(even(), num_negatives=0)


def test_one_class_has_no_negatives():
    with pytest.raises(ValueError, match=r'all 3 images have the class \[1\]'):
        ContrastiveSamples(Squares([1, 1, 1]))


def test_several_labels_an_image(tmp_path):
    path = tmp_path / 'labels.json'
    path.write_text(
        '{"metainfo": {"classes": ["a", "b"]}, "data_list": '
        '[{"img_path": "1.png", "gt_label": [0, 1]}]}'
    )
    dataset = MultiLabelDataset(ann_file=str(path), pipeline=[])
    with pytest.raises(ValueError, match=r'`gt_label` of image 0 is \[0, 1\]'):
        ContrastiveSamples(dataset)


def test_no_data_sample():
    dataset = ContrastiveSamples(even(pipeline=[]), num_negatives=2)
    with pytest.raises(TypeError, match="end its `pipeline` in dict.type='PackInputs'"):
        dataset[0]


@pytest.mark.parametrize(
    'wrap',
    [
        lambda *datasets: datasets[0],
        lambda *datasets: ConcatDataset(datasets[::-1]),
        lambda *datasets: RepeatDataset(datasets[0], 2),
    ],
)
def test_another_image_in_the_place_of_one_that_cannot_be_read(wrap):
    pipeline = [dict(type='Unreadable', below=20), *PACK]
    dataset = ContrastiveSamples(wrap(even(pipeline=pipeline), even()), 4)
    first = len(dataset) - 30
    for _ in range(10):
        item = dataset[first]
        sample = item['data_samples']
        shown = int(item['inputs'][0, 0, 0])
        assert shown >= 20 and int(sample.sample_idx) == first + shown
        idxs = sample.contrast_sample_idxs.tolist()
        assert idxs[0] == first + shown
        assert all(i % 3 != shown % 3 for i in idxs[1:])


def test_items_without_a_label():
    """They are taken for what their number says."""

    def forget(results):
        del results['gt_label']
        return results

    dataset = ContrastiveSamples(even(pipeline=[forget, *PACK]), num_negatives=4)
    first, *negatives = contrast(dataset, 4)
    assert first == 4 and all(i % 3 != 1 for i in negatives)


def test_items_of_another_class():
    pipeline = [dict(type='Unreadable', below=0, relabel=1), *PACK]
    dataset = ContrastiveSamples(even(pipeline=pipeline), num_negatives=4)
    with pytest.raises(ValueError, match='class 2 as number 4, which has class 1'):
        dataset[4]
