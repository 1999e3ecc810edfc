# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A work dir becomes a page that a newcomer can read."""

import json
import re
import shutil
import time

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmfakd.analysis.distillation import open_distillation
from mmfakd.analysis.learning_page import CAPTIONS, NO_HOOK, plot
from mmfakd.analysis.read_run import read_run
from mmfakd.analysis.trained_levels import beginning, look_at_levels
from mmfakd.checkpoints.latest import find_checkpoint
from mmfakd.checkpoints.student import export_student
from mmfakd.pictures.level_maps import FixedImages
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
    with pytest.raises(ValueError, match=r'to write is given as -o page\.html'):
        plot(str(work_dir), 'page.html')
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
    after = look_at_levels(read_run(work_dir).config, trained).after
    levels = [level.student for level in after]
    seen = look_at_levels(begun_with(trained, work_dir), trained)
    assert not seen.note
    assert all(map(torch.equal, [level.student for level in seen.before], levels))
    path = tmp_path / 'student.pth'
    torch.save(export_student(torch.load(trained, weights_only=False)), path)
    seen = look_at_levels(begun_with(path, work_dir), trained)
    assert all(map(torch.equal, [level.student for level in seen.before], levels))
    # What a resumed training goes on from is none of its beginning, which the config
    # does not tell. Nor are random weights.
    cfg = begun_with(trained, work_dir)
    cfg.resume = True
    seen = look_at_levels(cfg, trained)
    assert seen.before == [] and 'the training was resumed' in seen.note
    # What goes on where it can begins like any other.
    cfg.resume = 'auto'
    seen = look_at_levels(cfg, trained)
    assert not seen.note
    assert all(map(torch.equal, [level.student for level in seen.before], levels))


class FirstLook(Hook):
    """Keeps what the student predicts before the first step."""

    def before_train(self, runner):
        samples = next(iter(runner.val_loop.dataloader))
        _, self.levels = FixedImages(runner.model, samples).look()


def start(folder, **cfg):
    """Train an epoch; returns what was there before, and the training's teacher."""
    look = FirstLook()
    teacher = save_teacher(folder)
    model = distillation(teacher, **cfg.pop('model', {}))
    train(run_config(folder / 'run', model, 1, validate=True, **cfg), look)
    return look.levels, teacher


def go_on(folder, teacher):
    """Resume for an epoch, without the options of the first start."""
    path = str(folder / 'run/epoch_1.pth')
    time.sleep(1.1)  # Folders of logs are named after the second.
    more = dict(validate=True, resume=True, load_from=path)
    train(run_config(folder / 'run', distillation(teacher), 2, **more))


def look_at(work_dir):
    """As the page does, with the newest checkpoint."""
    checkpoint = find_checkpoint(str(work_dir)).path
    with open_distillation(str(work_dir)) as cfg:
        return look_at_levels(cfg, checkpoint, begin=beginning(read_run(work_dir)))


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected):
        assert torch.equal(one.student, other.student)
        assert torch.equal(one.prediction, other.prediction)


def test_what_mmengine_s_own_resume_begins(tmp_path):
    """It says `resume=True`, and begins anew where there is nothing to go on from."""
    began, _ = start(tmp_path, resume=True)
    seen = look_at(tmp_path / 'run')
    assert not seen.note
    assert_equal(seen.before, began)


@pytest.mark.parametrize('option', ['load_from', 'student_ckpt', 'seed'])
def test_before_a_resumed_training_is_what_it_began_with(option, work_dir, tmp_path):
    """Not what the options of its newest start would begin with."""
    path = tmp_path / 'student.pth'
    trained = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    torch.save(export_student(trained), path)
    options = dict(
        load_from=dict(load_from=str(path)),
        student_ckpt=dict(model=dict(student_ckpt=str(path))),
        seed=dict(randomness=dict(seed=None)),
    )
    began, teacher = start(tmp_path, **options[option])
    go_on(tmp_path, teacher)
    seen = look_at(tmp_path / 'run')
    assert not seen.note
    assert_equal(seen.before, began)
    if option == 'seed':
        return
    path.unlink()
    seen = look_at(tmp_path / 'run')
    assert seen.before == [] and f'it began with {path}, which cannot' in seen.note
    assert len(seen.after) == len(began)
    [first, _] = sorted((tmp_path / 'run').glob('*/vis_data'))
    shutil.rmtree(first)
    seen = look_at(tmp_path / 'run')
    assert seen.before == [] and 'the config that it began with' in seen.note


def test_before_training_has_its_seed(work_dir, tmp_path):
    """The checkpoint's, where an option or chance replaced that of the config."""
    trained = str(work_dir / 'epoch_1.pth')
    cfg = read_run(work_dir).config
    before = look_at_levels(cfg, trained).before
    for seed in (None, 5):
        cfg.randomness = dict(seed=seed)
        assert_equal(look_at_levels(cfg, trained).before, before)
    # Without it, as in files of others, the log's counts, and then the config's.
    saved = torch.load(trained, weights_only=False)
    del saved['meta']['seed']
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(saved, path)
    begin = beginning(read_run(work_dir))
    assert_equal(look_at_levels(cfg, path, begin=begin).before, before)
    cfg.randomness = dict(seed=None)
    seen = look_at_levels(cfg, path)
    assert seen.before == [] and 'tell the random seed' in seen.note


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
