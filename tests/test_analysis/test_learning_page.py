# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A work dir becomes a page that a newcomer can read."""

import json
import re
import shutil

import pytest
import torch
from mmengine.config import Config

from mmfakd.analysis.learning_page import CAPTIONS, NO_HOOK, plot
from mmfakd.analysis.read_run import read_run
from mmfakd.analysis.trained_levels import look_at_levels
from mmfakd.checkpoints.student import export_student
from tests.helpers.tiny_runs import distillation, run_config, save_teacher, train

HEADINGS = [
    'Ratio of gradients',
    'Filters',
    'Spectra',
    'Gap by band',
    'Gap in the course of training',
    'Filters in the course of training',
    'Attention',
]


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    """Of a training of two iterations that were both looked at."""
    folder = tmp_path_factory.mktemp('page')
    hooks = [
        dict(type='mmfakd.LearningPicturesHook', interval=1),
        dict(type='mmfakd.FirstStepHook'),
    ]
    model = distillation(save_teacher(folder))
    cfg = run_config(folder / 'run', model, 1, hooks=hooks, validate=True)
    train(cfg)
    return folder / 'run'


def headings(page):
    return re.findall('<h2>(.*?)</h2>', page)


def test_page(work_dir, capsys):
    said = plot(str(work_dir))
    assert said == f'{work_dir}/learning.html: 7 figures of 4 levels.'
    page = (work_dir / 'learning.html').read_text()
    assert headings(page) == HEADINGS
    assert page.count('src="data:image/png;base64,') == len(HEADINGS)
    text = re.sub('<.*?>|&#x27;', "'", page)
    for caption in CAPTIONS.values():
        assert caption.replace('"', "'")[:40] in text
    assert 'Images: 100 of the validation set.' in page
    assert 'Last validation: accuracy/top1 ' in page
    # Each level's gap, before and after, in each band that it has.
    cells = re.findall(r'<tr><td>level2: backbone.layer3</td>(.*?)</tr>', page)[0]
    values = re.findall('<td>(.*?)</td>', cells)
    assert values[2:4] == ['-', '-']
    assert all(float(values[i]) > 0 for i in (0, 1, 4, 5))
    assert not list(work_dir.glob('*.part'))


def test_page_without_the_hook(work_dir, tmp_path):
    """As far as it goes, and it says what is missing."""
    shutil.copytree(work_dir, tmp_path / 'run')
    [log] = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [line for line in log.read_text().splitlines() if 'learning/' not in line]
    log.write_text('\n'.join(lines))
    page = tmp_path / 'page.html'
    said = plot(str(tmp_path / 'run'), out=str(page))
    assert '4 figures' in said
    found = headings(page.read_text())
    assert found == [h for h in HEADINGS if 'course' not in h]
    assert NO_HOOK[:30] in page.read_text()
    report = json.loads((work_dir / 'distillation.json').read_text())
    ratio = f'<td>{report["levels"][0]["ratio"]:.3g}</td>'
    assert f'<td>loss_level0</td>{ratio}' in page.read_text()


def test_logs_of_looks_are_no_validations(work_dir):
    run = read_run(str(work_dir))
    assert list(run.scores) == ['accuracy/top1']


def test_what_is_missing_is_told(work_dir, tmp_path):
    with pytest.raises(ValueError, match='mmfakd plot WORK_DIR'):
        plot('fakd_review_r18w32_r18w4_1xb50_digits')
    with pytest.raises(ValueError, match=r'name it \*.html'):
        plot(str(work_dir), out='picture.png')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no checkpoint of a training'):
        plot(str(tmp_path / 'empty'))
    (tmp_path / 'empty/epoch_1.pth').write_bytes(b'no checkpoint')
    with pytest.raises(FileNotFoundError, match=r'Passed over: .*epoch_1'):
        plot(str(tmp_path / 'empty'))


def test_checkpoint_of_the_student_alone(work_dir, tmp_path):
    """As it lies beside each checkpoint of the distillation."""
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    file = tmp_path / 'epoch_1_student.pth'
    torch.save(export_student(checkpoint), file)
    message = rf'holds the student alone; give .* distillation, {tmp_path}/epoch_1.pth'
    with pytest.raises(ValueError, match=message):
        plot(str(work_dir), str(file))
    key = next(key for key in checkpoint['state_dict'] if 'distiller' in key)
    del checkpoint['state_dict'][key]
    torch.save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=f'another distillation .*{key}'):
        plot(str(work_dir), str(tmp_path / 'other.pth'))


def test_before_anything_is_built(work_dir, tmp_path):
    config, checkpoint = next(work_dir.glob('*.py')), str(work_dir / 'epoch_1.pth')
    with pytest.raises(ValueError, match=r'-o a.txt: expected a picture \(.png'):
        plot(str(config), checkpoint, 'a.txt')
    cfg = Config.fromfile(config)
    cfg.val_dataloader.dataset.indices = 0
    cfg.dump(tmp_path / 'empty.py')
    with pytest.raises(ValueError, match='its validation set has no image'):
        plot(str(tmp_path / 'empty.py'), checkpoint, str(tmp_path / 'a.png'))


def begun_with(path, work_dir):
    """Config of a training that began with a file."""
    return Config(dict(read_run(work_dir).config, load_from=str(path)))


def test_before_training_is_what_it_began_with(work_dir, tmp_path):
    """Not what the initial weights are; of a plain student, too."""
    trained = str(work_dir / 'epoch_1.pth')
    random = look_at_levels(read_run(work_dir).config, trained)
    levels = [level.student for level in random.after]
    seen = look_at_levels(begun_with(trained, work_dir), trained)
    assert not seen.note
    assert all(map(torch.equal, [level.student for level in seen.before], levels))
    path = tmp_path / 'student.pth'
    torch.save(export_student(torch.load(trained, weights_only=False)), path)
    seen = look_at_levels(begun_with(path, work_dir), trained)
    assert all(map(torch.equal, [level.student for level in seen.before], levels))
    # What a resumed training goes on from is none of its beginning.
    cfg = begun_with(trained, work_dir)
    cfg.resume = True
    found = look_at_levels(cfg, trained).before
    assert all(torch.equal(a.student, b.student) for a, b in zip(found, random.before))


def test_what_a_training_began_with_is_gone(work_dir, tmp_path):
    shutil.copytree(work_dir, tmp_path / 'run')
    [log] = (tmp_path / 'run').glob('*/vis_data/config.py')
    with open(log, 'a') as file:
        file.write("\nload_from = 'gone.pth'")
    said = plot(str(tmp_path / 'run'))
    page = (tmp_path / 'run/learning.html').read_text()
    for text in (said, re.sub('&#x27;', "'", page)):
        assert 'before training is not drawn: it began with gone.pth, which' in text
    assert '<th>low, after</th>' in page and 'low, before' not in page
    assert headings(page) == HEADINGS
    picture = str(tmp_path / 'a.png')
    config = tmp_path / 'config.py'
    begun_with('gone.pth', work_dir).dump(config)
    said = plot(str(config), str(work_dir / 'epoch_1.pth'), picture)
    assert 'it began with gone.pth' in said
