# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd compare`, on logs that real trainings wrote."""

import json
import shutil
from pathlib import Path

import mmengine
import pytest

from mmfakd import cli
from mmfakd.analysis import compare_work_dirs as module
from mmfakd.analysis.compare_work_dirs import _work_dirs, compare_work_dirs
from mmfakd.analysis.read_run import read_run
from tests.helpers import forked
from tests.helpers.compared_runs import (
    TOP1,
    logs,
    short,
    size,
)
from tests.helpers.toy import review_distiller


def test_notes_name_what_is_left_out(folder, tmp_path, monkeypatch):
    """Whatever is wrong with it, and though the error may name nothing."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    log.unlink()
    log.mkdir()
    items = [f'a={tmp_path}/run', f'b={folder}/alone_seed1']
    table = compare_work_dirs(items)
    assert f"Is a directory: '{log}'" in table and '| b | 1 |' in table

    def fail(work_dir):
        raise ValueError('no name in it')

    monkeypatch.setattr(module, 'read_run', fail)
    with pytest.raises(ValueError, match=f'Left out: {tmp_path}/run: no name in it'):
        compare_work_dirs(items)


def test_names_are_no_html_of_a_page(folder, tmp_path):
    """They may be a stranger's, of the log that others are added to."""
    page = tmp_path / 'page.md'
    name = r'<b onload=x>|\<i>'
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    table = compare_work_dirs([f'{name}={tmp_path}/run'], out=[str(page)])
    assert r'| <b onload=x>\|\<i> |' in table
    assert r'| &lt;b onload=x>\|\&lt;i> |' in page.read_text()
    assert '<' not in page.read_text()


def test_links_in_a_work_dir(folder, tmp_path):
    """Those that lead in circles, to the newest log, and to the work dir itself."""
    shutil.copytree(folder / 'alone_seed0', tmp_path / 'run')
    [log] = logs(tmp_path / 'run')
    for name in ('last', 'latest', 'newest'):
        (tmp_path / 'run' / name).symlink_to('.')
    (tmp_path / 'run' / 'log').symlink_to(log.parents[1].name)
    (tmp_path / 'link').symlink_to('run')
    whole = read_run(folder / 'alone_seed0')
    for name in ('run', 'link'):
        run = read_run(tmp_path / name)
        assert (run.scores, run.remarks) == (whole.scores, [])
        with pytest.raises(FileExistsError, match='that this command reads'):
            compare_work_dirs([f'a={tmp_path}/{name}'], out=[str(log)])
    # A log that lies elsewhere is read, too.
    shutil.move(log.parents[1], tmp_path / 'elsewhere')
    (tmp_path / 'run' / '20260101_000009').symlink_to('../elsewhere')
    moved = tmp_path / 'elsewhere/vis_data/scalars.json'
    with pytest.raises(FileExistsError, match='that this command reads'):
        compare_work_dirs([f'a={tmp_path}/link'], out=[str(moved)])


def figures(**changed):
    """A file of figures without a method, with other keys."""
    return json.dumps({**dict(metric=TOP1, baseline='a', methods=[]), **changed})


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('log.txt', None, 'FILE.json'),
        ('zoo.json', '{"models": []}', 'as it is'),
        ('empty.json', '', 'as it is'),
        ('deep.json', '[' * 100_000, 'as it is'),
        ('dict.json', figures(methods={'a': 1}), 'as it is'),
        ('runless.json', figures(methods=[{'method': 'a'}]), 'as it is'),
        ('curveless.json', figures(methods=[{'runs': [{'seed': 0}]}]), 'as it is'),
        ('remarks.json', figures(remarks=5), 'as it is'),
        ('metric.json', figures(metric=1), 'as it is'),
        ('nested.json', figures(x=json.loads('[' * 200 + ']' * 200)), 'as it is'),
    ],
    ids=short,
)
def test_files_that_are_no_comparison(name, text, message, folder, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f'--add-to .*{name}: expected .*{message}'):
        compare_work_dirs([f'alone={folder}/alone_seed*'], add_to=str(path))
    assert (path.read_text() if path.exists() else None) == text


@pytest.mark.parametrize(
    ('change', 'good'),
    [
        (lambda whole: whole['methods'][0]['runs'][0].pop('curve'), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(curve=[]), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(last=None), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(best=10**400), False),
        (lambda whole: whole['methods'][0]['runs'][0].update(config=[]), False),
        (lambda whole: whole['methods'][0].update(last=1), False),
        (lambda whole: whole.update(teacher={}), False),
        # What older versions wrote, and what others have added.
        (lambda whole: whole['methods'][0]['runs'][0].pop('config'), True),
        (lambda whole: (whole.pop('teacher'), whole.pop('remarks')), True),
        (lambda whole: whole['methods'][0]['runs'][0].update(fit={'a': [1]}), True),
        (lambda whole: whole['methods'][0]['runs'][0].update(seconds=None), True),
    ],
)
def test_figures_of_another_shape(change, good, folder, tmp_path):
    path = tmp_path / 'figures.json'
    compare_work_dirs([f'alone={folder}/alone_seed*'], add_to=str(path))
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    items = [f'fam={folder}/fam_seed*']
    if good:
        assert '| alone |' in compare_work_dirs(items, add_to=str(path))
        return
    with pytest.raises(ValueError, match=f'--add-to {path}: expected what'):
        compare_work_dirs(items, add_to=str(path))
    assert json.loads(path.read_text()) == whole


def test_files_that_cannot_be_written(folder, tmp_path):
    """Told before any log is read."""
    for name in ('notes.txt', 'curves', 'a.b/c'):
        with pytest.raises(ValueError, match=rf'-o {name}: expected figures \(.json\)'):
            compare_work_dirs(['not there'], out=['a.json', name])
    [log] = logs(folder / 'alone_seed0')
    before = log.read_text()
    with pytest.raises(FileExistsError, match='that this command reads'):
        compare_work_dirs([f'{folder}/alone_seed0'], out=[str(log)])
    assert log.read_text() == before


def test_command_adds_to_a_file(folder, tmp_path, capsys):
    path = str(tmp_path / 'figures.json')
    for name in ('fam', 'alone'):
        runs = f'{name}={folder}/{name}_seed*'
        table = compare_work_dirs([runs], add_to=path, baseline=name)
    assert 'minus alone' in table and '| fam |' in table
    both = [f'{name}={folder}/{name}_seed*' for name in ('fam', 'alone')]
    compare_work_dirs(both, baseline='alone', out=[f'{tmp_path}/whole.json'])
    assert mmengine.load(path) == mmengine.load(f'{tmp_path}/whole.json')
    assert [file.name for file in tmp_path.iterdir() if 'part' in file.name] == []
    # The earlier baseline stands where none is named, and what others have noted.
    known = mmengine.load(path)
    for method in known['methods']:
        method['runs'][0]['made'] = method['method']
    mmengine.dump(known, path)
    table = compare_work_dirs([f'fam={folder}/fam_seed*'], add_to=path)
    assert 'minus alone' in table
    after = mmengine.load(path)['methods']
    assert [m['runs'][0]['made'] for m in after] == [m['method'] for m in after]


def test_earlier_comparison_alone(folder, tmp_path):
    """Its figures are shown, and drawn, without any work dir; it stays as it is."""
    path = tmp_path / 'figures.json'
    runs = [f'{name}={folder}/{name}_seed*' for name in ('alone', 'fam')]
    table = compare_work_dirs(runs, out=[str(path)])
    before = path.read_bytes()
    page = tmp_path / 'page.md'
    assert compare_work_dirs([], add_to=str(path), out=[str(page)]) == table
    assert page.read_text() == f'{table}\n' and path.read_bytes() == before
    other = compare_work_dirs([], add_to=str(path), baseline='fam')
    assert 'minus fam' in other and path.read_bytes() == before
    for options in (dict(), dict(add_to=f'{tmp_path}/none.json')):
        with pytest.raises(ValueError, match='no work dir to compare: give some, or'):
            compare_work_dirs([], **options)
    with pytest.raises(ValueError, match='no work dir to compare'):
        compare_work_dirs([], add_to=str(path), teacher=str(folder / 'alone_seed0'))


def test_command(folder, tmp_path):
    """Names and globs, and names left out; the table, the JSON, the picture."""
    command = ['-m', 'mmfakd', 'compare', 'alone=alone_seed*', 'fam_seed1']
    command += ['fam_seed0', '--plot', tmp_path / 'curves.png']
    process = forked.run(*command, '--json', tmp_path / 'runs.json', cwd=folder)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line.split(' | ')[0] for line in lines[2:4]] == ['| alone', '| fam']
    assert lines[4] == '' and 'Notes' not in process.stdout
    comparison = json.loads((tmp_path / 'runs.json').read_text())
    assert [method['method'] for method in comparison['methods']] == ['alone', 'fam']
    fam = comparison['methods'][1]
    assert [run['work_dir'] for run in fam['runs']] == ['fam_seed1', 'fam_seed0']
    assert fam['difference']['pairs'] == [
        ['fam_seed1', 'alone_seed1'],
        ['fam_seed0', 'alone_seed0'],
    ]
    resumed = read_run(folder / 'fam_seed1')
    assert fam['runs'][0]['curve'] == [list(p) for p in resumed.scores[TOP1].items()]
    assert fam['added'] == size(review_distiller(width=2, teacher_width=4))
    header = (tmp_path / 'curves.png').read_bytes()
    assert header.startswith(b'\x89PNG') and len(header) > 20_000


def test_names_of_any_letters(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    runs = ['lr=0.02=alone_seed0,alone_seed1', '-o=alone_seed*']
    for item, name in zip(runs, ('lr=0.02', '-o')):
        cli.main(['compare', f'--baseline={name}', '--', item])
        [line] = capsys.readouterr().out.splitlines()[2:3]
        assert line.split(' | ')[0] == f'| {name}'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['lr=0.02=nowhere'], "'0.02=nowhere': no such folder; expected NAME=DIR"),
        (['lr=2=nowhere,alone_seed0'], "'nowhere': no such folder; expected NAME=DIR"),
        (['lr=2=alone_seed0,nowhere'], "'nowhere': no such folder; expected NAME=DIR"),
        (['kd=nowhere*'], "'nowhere*': no such folder; expected NAME=DIR"),
        (['nowhere'], "'nowhere': no such folder; expected NAME=DIR"),
        (['a=alone_seed0', 'b=alone_seed*'], 'alone_seed0: given twice'),
        (['.'], 'Left out: .: no log of a training'),
        (['kd=.'], 'Left out: .: no log of a training'),
        (['alone_seed0', '--metric', 'f1'], "metric 'f1': the logs hold"),
    ],
)
def test_refused_commands(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        cli.main(['compare', *arguments])
    assert message in str(stopped.value)


def test_folder_without_a_log_among_others(folder, monkeypatch, capsys):
    """A run of a glob that has not logged yet stops nothing, and is named."""
    (folder / 'alone_seed2').mkdir()
    monkeypatch.chdir(folder)
    cli.main(['compare', 'alone=alone_seed*'])
    (folder / 'alone_seed2').rmdir()
    printed = capsys.readouterr().out
    assert '| alone | 0, 1 |' in printed
    assert '- Left out: alone_seed2: no log of a training' in printed


def test_order_of_a_glob(tmp_path):
    for number in (10, 9, 0):
        (tmp_path / f'kd_seed{number}').mkdir()
    name, folders = _work_dirs(f'kd={tmp_path}/kd_seed*')
    assert name == 'kd'
    assert [Path(path).name for path in folders] == [
        'kd_seed0',
        'kd_seed9',
        'kd_seed10',
    ]


def test_folders_with_signs_of_their_own(tmp_path):
    """No name, glob or list, where a folder has the signs of one."""
    for path in ('lr=0.1_seed0', 'run[0]', 'lr=0.1,wd=1', 'lr=0.2[a]'):
        (tmp_path / path).mkdir()
        item = str(tmp_path / path)
        assert _work_dirs(item) == (None, [item])
        assert _work_dirs(f'kd={item}') == ('kd', [item])
    item = str(tmp_path / 'lr=0.1,wd=*')
    assert _work_dirs(item) == (None, [str(tmp_path / 'lr=0.1,wd=1')])
    several = f'{tmp_path / "lr=0.1_seed0"},{tmp_path / "run[0]"}'
    assert _work_dirs(f'kd={several}') == ('kd', several.split(','))
