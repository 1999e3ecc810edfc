# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The comparison of trainings, on logs that real trainings wrote."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmfakd.analysis.compare_runs import compare, extend
from mmfakd.analysis.comparison_table import format_table
from mmfakd.analysis.read_run import read_run
from tests.helpers.compared_runs import (
    MAP,
    TOP1,
    logs,
    rows,
    scripted,
    seed,
    seeds,
    size,
    train_in,
    variant,
)
from tests.helpers.tiny_runs import (
    student,
)


def test_model_that_cannot_be_built(run):
    config = Config(dict(run.config.to_dict(), custom_imports=dict(imports='not_here')))
    comparison = compare({'alone': [replace(run, config=config)]})
    [note] = comparison['notes']
    assert note.startswith('alone: parameters unknown, building the model failed with')
    assert 'not_here' in note
    assert format_table(comparison).splitlines()[2].endswith('|  |  |')


def test_comparison_of_real_runs(folder, methods):
    last, best = {}, {}
    for name in methods:
        curves = [
            [row[TOP1] for log in logs(folder / f'{name}_seed{i}') for row in rows(log)
             if TOP1 in row]
            for i in (0, 1)
        ]  # fmt: skip
        # The first start of the resumed run reached epoch 2, which was trained again.
        if name == 'fam':
            del curves[1][1]
        last[name] = [curve[-1] for curve in curves]
        best[name] = [max(curve) for curve in curves]
    comparison = compare(methods)
    assert (comparison['metric'], comparison['baseline']) == (TOP1, 'alone')
    assert comparison['notes'] == [] and comparison['teacher'] is None
    [alone, fam] = comparison['methods']
    for name, method in (('alone', alone), ('fam', fam)):
        for key, values in (('last', last[name]), ('best', best[name])):
            assert method[key]['mean'] == pytest.approx(np.mean(values))
            assert method[key]['spread'] == pytest.approx(np.std(values, ddof=1))
        assert [run['seed'] for run in method['runs']] == [0, 1]
        times = [run['seconds'] for run in method['runs']]
        assert method['seconds'] == pytest.approx(np.mean(times))
        assert method['parameters'] == size(student())
    differences = np.subtract(last['fam'], last['alone'])
    assert alone['difference'] is None
    assert fam['difference']['mean'] == pytest.approx(differences.mean())
    error = differences.std(ddof=1) / np.sqrt(2)
    assert fam['difference']['standard_error'] == pytest.approx(error)


def test_difference_is_paired_by_seed(run):
    """Differences 1, 3, 5, whatever the order: mean 3, standard error 2 / sqrt(3)."""
    alone, ours = seeds(run, 80, 70, 75), seeds(run, 81, 73, 80)
    comparison = compare({'alone': alone, 'ours': ours[::-1]})
    assert comparison['notes'] == []
    lines = format_table(comparison).splitlines()
    assert lines[0].startswith(
        '| method | seeds | last accuracy/top1 | best | minus alone | train time |'
    )
    assert lines[2].startswith('| alone | 0-2 | 75.00 (5.00) | 75.00 (5.00) |  |')
    assert lines[3].startswith(
        '| ours | 0-2 | 78.00 (4.36) | 78.00 (4.36) | +3.00 ± 1.15 |'
    )
    assert lines[5].startswith('Scores: higher is better; mean over the seeds (')
    other = compare({'alone': alone, 'ours': ours}, baseline='ours')
    assert other['methods'][0]['difference']['mean'] == -3


def test_runs_of_another_day_are_added(run):
    alone, ours = seeds(run, 80, 70, 75), seeds(run, 81, 73, 80)
    whole = compare({'alone': alone, 'ours': ours})
    # A round trip by a file, and one run anew.
    first = json.loads(json.dumps(compare({'ours': seeds(run, 99, 73)})))
    again = compare({'ours': [ours[0], ours[2]]})
    found = extend(first, again)
    found['methods'][0]['runs'][0]['kept'] = 1
    found = extend(found, compare({'alone': alone}), baseline='alone')
    assert found['methods'][0]['runs'][0].pop('kept') == 1
    assert json.loads(json.dumps(found['methods'][::-1])) == json.loads(
        json.dumps(whole['methods'])
    )
    assert (found['baseline'], found['notes']) == ('alone', [])
    with pytest.raises(ValueError, match=r"baseline 'other': expected one of \['ours'"):
        extend(found, again, baseline='other')
    with pytest.raises(ValueError, match=r'mIoU was compared before, accuracy/top1'):
        extend(dict(found, metric='mIoU'), again)


def test_configs_of_another_day(run):
    """Runs that are added are remarked on as those of one call are."""
    other = Config(run.config.to_dict())
    other.optim_wrapper.optimizer.lr = 0.5
    other.work_dir = 'another'
    first, *later = seeds(run, 80, 70, 75)
    later[1].config = other
    for added in (later, later[1:]):
        whole = json.loads(json.dumps(compare({'alone': [first]})))
        found = extend(whole, compare({'alone': added}))
        notes = [note for note in found['notes'] if 'its config differs from' in note]
        assert notes[0] == (
            f'alone seed 2 ({later[1].work_dir}): its config differs from that of '
            f'alone seed 0 ({first.work_dir}) in optim_wrapper.'
        )
        assert all(note.startswith('alone seed 2 ') for note in notes)
    # Once more, and by one that takes the place of the first.
    again = extend(json.loads(json.dumps(found)), compare({'alone': added}))
    assert again['notes'] == found['notes']
    odd = replace(first, config=other)
    again = extend(compare({'alone': [first, later[0]]}), compare({'alone': [odd]}))
    assert again['notes'] == [
        f'alone seed 0 ({first.work_dir}): its config differs from that of alone seed '
        f'1 ({later[0].work_dir}) in optim_wrapper.'
    ]
    # Files of older versions have none to compare with.
    for one in whole['methods'][0]['runs']:
        assert len(json.dumps(one.pop('config'))) < 1000
    assert not extend(whole, compare({'alone': later[1:]}))['notes']


def test_unfinished_run_replaces_no_finished_one(run):
    """Seed 0 is trained again, and has one epoch of two so far."""
    finished = [
        variant(run, [60, 80 + i], seed=i, work_dir=f'wd{i}', remarks=['it is old'])
        for i in (0, 1)
    ]
    whole = json.loads(json.dumps(compare({'alone': finished})))
    begun = replace(variant(run, [50], seed=0, work_dir='again'), length=2)
    found = extend(whole, compare({'alone': [begun]}))
    [alone] = found['methods']
    assert [one['work_dir'] for one in alone['runs']] == ['wd0', 'wd1']
    assert alone['last']['mean'] == 80.5
    notes = found['notes']
    assert 'alone seed 0 (wd0), alone seed 1 (wd1): it is old.' in notes
    [note] = [note for note in notes if 'compared before has 2' in note]
    assert note.startswith('alone seed 0 (again): ends at 1; left out')
    # Once it has got as far it takes its place, and what was said is said no more.
    done = variant(run, [50, 90], seed=0, work_dir='again')
    found = extend(json.loads(json.dumps(found)), compare({'alone': [done]}))
    assert [one['work_dir'] for one in found['methods'][0]['runs']] == ['again', 'wd1']
    assert found['notes'] == ['alone seed 1 (wd1): it is old.']
    # Differences are those of now.
    other = compare({'other': [variant(run, [1, 2], seed=1, work_dir='o')]})
    found = extend(found, other, baseline='other')
    assert found['methods'][0]['difference']['mean'] == 79
    assert extend(found, other, baseline='alone')['methods'][0]['difference'] is None


def test_epochs_and_iterations_of_one_method(run):
    whole = compare({'alone': seeds(run, 80)})
    later = [replace(one, unit='iteration') for one in seeds(run, 70, first=1)]
    with pytest.raises(ValueError, match='alone: its runs counted by epoch before, '):
        extend(whole, compare({'alone': later}))


def test_method_without_a_score_of_its_own(run):
    """What was known of it stays."""
    whole = compare({'alone': seeds(run, 80), 'ours': seeds(run, 82)})
    begun = replace(variant(run, [], seed=5), scores={})
    later = compare({'ours': [begun], 'third': seeds(run, 70)}, TOP1, 'third')
    found = {one['method']: one for one in extend(whole, later)['methods']}
    assert [one['seed'] for one in found['ours']['runs']] == [0]
    assert (found['ours']['unit'], found['ours']['last']['mean']) == ('epoch', 82)


def test_shorter_run_of_another_day_is_left_out(run):
    whole = compare({'alone': seeds(run, 80, 70)})
    longer = variant(run, [60, 90], seed=2, work_dir='later')
    found = extend(whole, compare({'alone': [longer]}))
    assert [one['seed'] for one in found['methods'][0]['runs']] == [2]
    assert found['methods'][0]['last']['mean'] == 90
    [note] = [note for note in found['notes'] if 'ends at 1; left out' in note]
    assert 'alone seed 0' in note and 'alone seed 1' in note


def test_one_seed_has_no_spread(run):
    comparison = compare({'alone': seeds(run, 80), 'ours': seeds(run, 82)})
    assert '| ours | 0 | 82.00 | 82.00 | +2.00 |' in format_table(comparison)


def test_seeds_without_a_partner(run):
    """Seeds 0 to 2 against 1 to 4: the pairs are 1 and 2."""
    alone, ours = seeds(run, 80, 70, 75), seeds(run, 71, 78, 90, 90, first=1)
    comparison = compare({'alone': alone, 'ours': ours})
    [note] = comparison['notes']
    assert note == 'ours and alone: 4 and 3 runs, the difference is that of 2 pairs.'
    difference = comparison['methods'][1]['difference']
    assert difference['mean'] == pytest.approx((71 - 70 + 78 - 75) / 2)
    assert [Path(mine).name for mine, _ in difference['pairs']] == ['1', '2']
    assert '| ours | 1-4 |' in format_table(comparison)


@pytest.mark.parametrize(
    ('numbers', 'reason', 'shown'),
    [
        ((0, None), 'not all seeds are known', '0, 1 unknown'),
        ((0, 0), 'a seed is there twice', '0, 0'),
        ((7, 9), 'they have no seed in common', '7, 9'),
    ],
)
def test_pairing_in_the_order_given(numbers, reason, shown, run):
    alone = seeds(run, 80, 70)
    ours = [replace(r, seed=n) for r, n in zip(seeds(run, 81, 73), numbers)]
    comparison = compare({'alone': alone, 'ours': ours})
    [note] = comparison['notes']
    assert note == f'ours and alone: paired in the order given, as {reason}.'
    assert comparison['methods'][1]['difference']['mean'] == 2
    assert f'| ours | {shown} |' in format_table(comparison)
    other = compare({'alone': alone, 'ours': ours}, baseline='ours')
    assert other['notes'] == [note.replace('ours and alone', 'alone and ours')]


def test_shorter_run_is_left_out(run):
    """A crashed seed changes no mean, and is named."""
    ours = [variant(run, [10, 20], seed=0), variant(run, [10, 24], seed=1)]
    crashed = replace(variant(run, [90], seed=2, work_dir='crashed'), length=2)
    comparison = compare({'ours': [crashed, *ours]})
    [method] = comparison['methods']
    assert method['last']['mean'] == 22
    assert [run['seed'] for run in method['runs']] == [0, 1]
    [note] = comparison['notes']
    assert note == (
        f'ours seed 2 (crashed): its last {TOP1} is that of epoch 1, 2 were asked for; '
        'left out, as the longest run of this method has 2.'
    )


def test_methods_of_unequal_length(run):
    comparison = compare(
        {'alone': [variant(run, [10, 20])], 'ours': [variant(run, [10, 20, 30])]}
    )
    assert comparison['notes'] == [
        'Runs of unequal length: they end, alone at epoch 2; ours at epoch 3.',
        'Unequal numbers of validations: alone 2; ours 3; `best` is a maximum over '
        'them.',
    ]


def test_unfinished_runs_are_named_together(run):
    """One note for both; their means are shown all the same."""
    ours = [replace(r, length=5) for r in seeds(run, 30, 40)]
    comparison = compare({'ours': ours})
    [note] = comparison['notes']
    assert note.count('ours seed') == 2 and 'epoch 1, 5 were asked for' in note
    assert comparison['methods'][0]['last']['mean'] == 35


def test_run_without_validation(run, tmp_path):
    """A real one, and one whose validations hold another score."""
    train_in(tmp_path / 'blind', student(), validate=False, epochs=1, **seed(3))
    other = replace(run, scores={'accuracy/top5': {1: 90.0}}, work_dir='other')
    comparison = compare(
        {'alone': [run, read_run(tmp_path / 'blind'), other], 'ours': [other]}
    )
    assert comparison['notes'] == [
        f'alone seed 3 ({tmp_path}/blind): no {TOP1} in its logs (no validation), left '
        'out.',
        f'alone seed 0 (other), ours seed 0 (other): no {TOP1} in its logs '
        '(accuracy/top5), left out.',
    ]
    assert [method['last']['mean'] for method in comparison['methods']] == [
        run.last(TOP1),
        None,
    ]
    assert '| ours | none |  |  |  |' in format_table(comparison)
    with pytest.raises(ValueError, match="but \\['accuracy/top5'\\]"):
        other.last(TOP1)


def test_runs_of_one_method_with_another_config(run):
    """Other seeds and work dirs are as they should be, another rate is not."""
    config = Config(run.config.to_dict())
    config.optim_wrapper.optimizer.lr = 0.1
    config.work_dir, config.randomness.seed = 'elsewhere', 1
    [note] = compare({'ours': [run, replace(run, config=config, seed=1)]})['notes']
    assert note.endswith('in optim_wrapper.optimizer.lr.')
    assert f'ours seed 1 ({run.work_dir}): its config differs' in note


def test_metric_of_detectors(tmp_path):
    """The one that is there is found; fractions get more digits than percents."""
    scores = {MAP: [0.312, 0.374, 0.368], 'coco/bbox_mAP_50': [0.5, 0.6, 0.7]}
    train_in(
        tmp_path / 'det_seed0', student(), epochs=3, val_evaluator=scripted(**scores)
    )
    run = read_run(tmp_path / 'det_seed0')
    assert run.scores[MAP] == {1: 0.312, 2: 0.374, 3: 0.368}
    comparison = compare({'det': [run]})
    assert comparison['metric'] == MAP and comparison['notes'] == []
    assert f'| last {MAP} |' in format_table(comparison)
    assert '| det | 0 | 0.3680 | 0.3740 |' in format_table(comparison)
    comparison = compare({'det': [run]}, metric='coco/bbox_mAP_50')
    assert comparison['methods'][0]['last']['mean'] == 0.7


def test_teacher_is_listed_but_not_compared(run):
    teacher = variant(run, [98.8, 97.0], seed=None)
    comparison = compare({'alone': seeds(run, 80)}, teacher=teacher)
    assert comparison['notes'] == []
    line = format_table(comparison).splitlines()[2]
    assert line.startswith('| teacher | 1 unknown | 97.00 | 98.80 |  |')


@pytest.mark.parametrize('score', [17.9, 80])
def test_teacher_no_better_than_the_student_alone(score, run):
    teacher = variant(run, [98.8, score], seed=None)
    methods = {'alone': seeds(run, 80), 'kd': seeds(run, 70)}
    comparison = compare(methods, teacher=teacher)
    said = (
        f'teacher: its last score, {score:.4g}, is not above that of alone, 80: it may '
        'have nothing to teach; see what it was trained on, and for how long.'
    )
    assert comparison['notes'] == [said]
    added = extend(comparison, compare({'kd': seeds(run, 71)}))
    assert added['notes'] == [said]
    better = compare({'kd': seeds(run, 71)}, teacher=variant(run, [98.0], seed=None))
    assert extend(comparison, better)['notes'] == []


def test_figures_of_an_older_version_name_no_teacher(run):
    older = compare({'alone': seeds(run, 80)})
    del older['teacher']
    found = extend(older, compare({'kd': seeds(run, 81)}))
    assert found['teacher'] is None and len(found['methods']) == 2


def both_metrics(run):
    return replace(run, scores={TOP1: {1: 5.0}, MAP: {1: 0.5}})


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (None, dict(baseline='kd'), r"baseline 'kd': expected one of \['alone'\]"),
        (None, dict(metric='top1'), r"'top1': the logs hold \['accuracy/top1'\]"),
        (both_metrics, {}, r'accuracy/top1 and coco/bbox_mAP in the logs.*--metric'),
        (
            lambda run: replace(run, scores={'f1': {1: 1.0}}),
            {},
            r"^none of acc.*hold \['f1'\]",
        ),
        (lambda run: replace(run, scores={}), {}, 'hold no validation'),
    ],
)
def test_refused_comparisons(change, options, message, run):
    with pytest.raises(ValueError, match=message):
        compare({'alone': [change(run) if change else run]}, **options)


def test_method_of_two_kinds_of_loops(run):
    other = replace(run, unit='iteration')
    with pytest.raises(ValueError, match='alone: some of its runs count epochs'):
        compare({'alone': [run, other]})
