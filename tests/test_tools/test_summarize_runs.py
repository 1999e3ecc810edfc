# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import importlib.util
import json
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def load_tool(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool(REPOSITORY / 'tools/analysis_tools/summarize_runs.py')


def runs(*accuracies, added=0):
    return [tool.Run(a, a, 10.0, 100, added) for a in accuracies]


def test_table_pairs_the_seeds():
    """Differences 1, 3, 5: mean 3, standard error 2 / sqrt(3)."""
    table = tool.format_table(
        {'alone': runs(80, 70, 75), 'ours': runs(81, 73, 80, added=1234)},
        baseline='alone',
    )
    [alone, ours] = table.splitlines()[2:]
    assert alone == '| alone | 75.00 | 5.00 |  | 100 | 0 | 10 s |'
    assert ours == '| ours | 78.00 | 4.36 | +3.00 ± 1.15 | 100 | 1,234 | 10 s |'


def test_one_seed_has_no_spread():
    table = tool.format_table({'alone': runs(80), 'ours': runs(82)}, 'alone')
    assert table.splitlines()[3] == '| ours | 82.00 |  | +2.00 | 100 | 0 | 10 s |'


def test_newest_run_of_a_work_dir(tmp_path):
    base = REPOSITORY / 'configs/fakd/digits/r18w4_1xb50_digits.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {str(base)!r}\n')
    for name, scores in (('20260101', [10.0]), ('20260102', [20.0, 60.0, 50.0])):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        rows = [dict(loss=1.0, time=0.5, step=4), dict(loss=1.0, time=1.0, step=6)]
        rows += [{'accuracy/top1': score, 'step': 1} for score in scores]
        lines = [json.dumps(row) for row in rows]
        (folder / 'scalars.json').write_text('\n'.join(lines))
    run = tool.read_run(tmp_path)
    assert (run.last, run.best) == (50.0, 60.0)
    assert run.seconds == 4 * 0.5 + 2 * 1.0
    assert run.added == 0 and run.parameters == 11_302


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'scalars\.json'):
        tool.read_run(tmp_path)
