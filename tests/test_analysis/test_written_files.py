# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Metrics that write files are told from those that may."""

import mmdet.evaluation  # noqa: F401
import pytest

import mmfakd  # noqa: F401
from mmfakd.analysis.written_files import refuse_written_files


@pytest.mark.parametrize(
    'evaluator',
    [
        dict(type='Accuracy', topk=(1, 5)),
        dict(type='CocoMetric', ann_file='a.json', metric='bbox', classwise=True),
        dict(type='CocoMetric', format_only=False, outfile_prefix=None),
        [dict(type='mmdet.CocoMetric'), dict(type='VOCMetric', collect_dir=None)],
        dict(type='Evaluator', metrics=[dict(type='CocoMetric', prefix='a')]),
        dict(type='of_a_library_that_is_not_here.Metric', prefix='a'),
        [],
    ],
    ids=str,
)
def test_others_are_left_alone(evaluator):
    refuse_written_files(evaluator, 'mmdet')


@pytest.mark.parametrize(
    ('evaluator', 'scope', 'key'),
    [
        (dict(type='mmdet.DumpProposals'), None, 'output_dir'),
        (dict(type='DumpProposals'), 'mmdet', 'output_dir'),
        (dict(type='DumpProposals', _scope_='mmdet'), 'mmfakd', 'output_dir'),
        ([dict(type='CocoMetric', outfile_prefix='a')], 'mmdet', 'outfile_prefix'),
        (
            dict(type='Evaluator', metrics=dict(type='A', csv_dir='a')),
            'mmdet',
            'csv_dir',
        ),
    ],
    ids=str,
)
def test_what_writes_by_default_or_as_told(evaluator, scope, key):
    with pytest.raises(ValueError, match=f'writes files, .* with {key}='):
        refuse_written_files(evaluator, scope)
