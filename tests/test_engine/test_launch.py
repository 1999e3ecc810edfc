# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the options of a run do to its config."""

import json
import os
from pathlib import Path

import cv2
import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmfakd.cli import main
from mmfakd.engine.launch import (
    build_runner,
    merge_launch_options,
    merge_test_options,
    merge_train_options,
)
from mmfakd.engine.launch import test as evaluate
from mmfakd.model_zoo.find import config_file
from tests.helpers.tiny_runs import (
    distillation,
    run_config,
    save_teacher,
    student,
    teacher,
)

NAME = 'fakd_review_r18w32_r18w4_1xb50_digits'
CELLS = 'fakd_review_gfl_r18_r18w16_1xb8_bccd'
SHARED = Path(__file__).resolve().parents[3] / 'shared/data/bccd'


@pytest.fixture(autouse=True)
def local_rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        (NAME, NAME),
        ('mmfakd::fakd/digits/' + NAME + '.py', NAME),
        ('regnetx-1.6gf_8xb128_in1k', 'regnetx-1.6gf_8xb128_in1k'),
    ],
)
def test_work_dir_is_named_after_the_config(config, name):
    cfg = Config.fromfile(config_file(config))
    assert cfg.get('work_dir') is None
    merge_launch_options(cfg)
    assert cfg.work_dir == f'./work_dirs/{name}'


def test_processes_of_mpi_have_a_gpu_each(monkeypatch):
    for name, value in dict(RANK=5, SIZE=8, LOCAL_RANK=1).items():
        monkeypatch.setenv(f'OMPI_COMM_WORLD_{name}', str(value))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('LOCAL_RANK', '0')
    merge_launch_options(Config(dict(work_dir='w')), launcher='mpi')
    assert os.environ['LOCAL_RANK'] == '1'


def test_work_dir_of_a_path(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'my_0.5x.py'
    path.parent.mkdir()
    path.write_text('a = 1\n')
    cfg = Config.fromfile(config_file(str(path)))
    merge_launch_options(cfg)
    assert cfg.work_dir == './work_dirs/my_0.5x'
    merge_launch_options(cfg, cfg_options=['work_dir=here'])
    assert cfg.work_dir == 'here'
    monkeypatch.setenv('SLURM_PROCID', '0')
    monkeypatch.setenv('SLURM_NTASKS', '1')
    merge_launch_options(cfg, work_dir='there', launcher='slurm')
    assert (cfg.work_dir, cfg.launcher) == ('there', 'slurm')


@pytest.mark.parametrize('command', ['train', 'test'])
def test_launcher_that_started_nothing(command, monkeypatch, tmp_path, capsys):
    """Both commands say so, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    path = tmp_path / 'plain.pth'
    torch.save(dict(state_dict={'weight': torch.zeros(1)}), path)
    words = [command, NAME, *[str(path)][: command == 'test'], '--launcher', 'slurm']
    said = rf'^mmfakd {command}: --launcher slurm: the environment has no SLURM_PROCID'
    with pytest.raises(SystemExit, match=said):
        main(words)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize('rank', ['0', '1'])
def test_one_process_writes_the_results(rank, tmp_path, monkeypatch):
    """Other machines need not have the folder."""
    monkeypatch.setenv('RANK', rank)
    (tmp_path / 'file').touch()
    path = tmp_path / 'plain.pth'
    torch.save(dict(state_dict={'weight': torch.zeros(1)}), path)
    options = dict(launcher='pytorch', work_dir=str(tmp_path / 'here'))
    arguments = NAME, str(path), str(tmp_path / 'file/x.pkl')
    if rank == '0':
        with pytest.raises(OSError, match='could not be written: Not a directory'):
            evaluate(*arguments, **options)
    else:
        assert callable(evaluate(*arguments, **options))


@pytest.mark.parametrize(
    ('kind', 'by_epoch'), [('EpochBasedTrainLoop', True), ('IterBasedTrainLoop', False)]
)
def test_a_loop_that_is_told_twice(kind, by_epoch, tmp_path):
    """As in mmdet's SOLOv2-light; MMEngine refuses both, also where they agree."""
    cfg = run_config(tmp_path, student(), iters=None if by_epoch else 2)
    cfg.train_cfg.type = kind
    cfg.experiment_name = f'loop_{kind}'
    assert cfg.train_cfg.by_epoch is by_epoch
    runner = build_runner(cfg)
    assert type(runner.build_train_loop(cfg.train_cfg)).__name__ == kind


def test_a_loop_that_is_told_two_things(tmp_path):
    cfg = run_config(tmp_path, student())
    cfg.train_cfg.type = 'IterBasedTrainLoop'
    cfg.experiment_name = 'two_loops'
    with pytest.raises(RuntimeError, match='Only one of `type` or `by_epoch`'):
        build_runner(cfg).train()


def test_a_hook_that_is_turned_off(tmp_path):
    """MMEngine knows None for the hooks that it adds itself alone."""
    cfg = run_config(tmp_path, student())
    cfg.default_hooks.preemption = None
    cfg.experiment_name = 'a_hook_off'
    names = [type(hook).__name__ for hook in build_runner(cfg).hooks]
    assert 'PreemptionHook' not in names


def show(config, folder, *options):
    """Pictures of what a student at random predicts of two images."""
    cfg = Config.fromfile(config_file(config))
    shown = dict(cfg.model.architecture, data_preprocessor=cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        state_dict = MODELS.build(shown).state_dict()
    torch.save(dict(state_dict=state_dict), folder / 'student.pth')
    evaluate(
        config,
        str(folder / 'student.pth'),
        show_dir=str(folder / 'shown'),
        work_dir=str(folder / 'work'),
        cfg_options=[
            *('log_level=ERROR', 'test_dataloader.dataset.indices=2'),
            *('test_dataloader.batch_size=2', *options),
        ],
    )()
    return sorted((folder / 'shown').iterdir())


def test_changes_are_allowed_where_the_hook_is(tmp_path):
    cfg = run_config(tmp_path, student(), hooks=[dict(type='mmfakd.ProvenanceHook')])
    merge_train_options(cfg, allow_changes=True)
    assert cfg.custom_hooks[0].allow_changes is True
    assert 'provenance' not in cfg.default_hooks


def test_pictures_of_classes(tmp_path):
    pictures = show(NAME, tmp_path)
    assert [picture.name for picture in pictures] == ['0_0.png', '1_0.png']
    # Large enough for what is written on it.
    assert cv2.imread(str(pictures[0])).shape == (256, 256, 3)


def test_pictures_of_classes_at_an_interval(tmp_path):
    every = 'default_hooks.visualization.interval=2'
    assert [picture.name for picture in show(NAME, tmp_path, every)] == ['0_0.png']


@pytest.mark.parametrize(
    ('hook', 'folder'),
    [
        ('mmpretrain.engine.hooks import VisualizationHook', 'out_dir'),
        ('mmdet.engine.hooks import DetVisualizationHook', 'test_out_dir'),
    ],
)
def test_pictures_of_configs_in_pure_python(hook, folder, tmp_path):
    """Whose types are classes."""
    pytest.importorskip(hook.split()[0])
    path = tmp_path / 'lazy.py'
    path.write_text(
        f'from {hook}\n\n'
        f'default_hooks = dict(visualization=dict(type={hook.split()[-1]}))\n'
        "model = dict(type='ImageClassifier')\n"
    )
    cfg = merge_test_options(Config.fromfile(path), 'x.pth', show_dir='shown')
    assert cfg.default_hooks.visualization[folder] == 'shown'


def test_pictures_of_detections(tmp_path):
    if not SHARED.exists():
        pytest.skip(f'{SHARED} has the images, and is not here')
    pictures = show(
        CELLS,
        tmp_path,
        f'test_dataloader.dataset.data_root={SHARED}/',
        f'test_evaluator.ann_file={SHARED}/annotations/test.json',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    )
    assert len(pictures) == 2
    # Ground truth and detections side by side.
    assert cv2.imread(str(pictures[0])).shape == (480, 2 * 640, 3)


def save(cfg, folder, name, change=lambda weights: weights):
    """Weights of a config's model, as `change` returns them.

    Returns:
        The path, as a string.
    """
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        weights = MODELS.build(cfg.model).state_dict()
    path = str(folder / f'{name}.pth')
    torch.save(dict(state_dict=change(weights), meta={}), path)
    return path


def test_weights_that_do_not_fit_are_not_scored(tmp_path):
    """A part of the network would be random, and the score meaningless."""
    plain = run_config(tmp_path / 'work', student(), validate=True)
    distilled = run_config(
        tmp_path / 'work', distillation(save_teacher(tmp_path)), validate=True
    )
    wide = run_config(tmp_path, teacher())

    def cut(weights):
        return {k: v for k, v in weights.items() if 'layer2' not in k}

    def renamed(weights):
        return {f'zz.{k}': v for k, v in weights.items()}

    cases = [
        (plain, save(wide, tmp_path, 'wide'), 'do not fit the ImageClassifier'),
        (plain, save(plain, tmp_path, 'cut', cut), 'not in it: backbone.layer2'),
        (plain, save(plain, tmp_path, 'renamed', renamed), 'none of its .* keys'),
        (distilled, str(tmp_path / 'wide.pth'), 'do not fit the ImageClassifier'),
        (distilled, str(tmp_path / 'cut.pth'), 'not in it: backbone.layer2'),
        (
            distilled,
            save(distilled, tmp_path, 'all_cut', cut),
            'not in it: backbone.layer2',
        ),
    ]
    for number, (cfg, weights, message) in enumerate(cases):
        path = tmp_path / f'unfit{number}.py'
        cfg.dump(path)
        with pytest.raises(ValueError, match=message):
            evaluate(str(path), weights)()


def test_a_work_dir_that_cannot_be_written(tmp_path):
    cfg = run_config(tmp_path / 'work', student(), validate=True)
    path = tmp_path / 'plain.py'
    cfg.dump(path)
    with pytest.raises(OSError, match='plain.py/run cannot be written: it, or a folde'):
        evaluate(str(path), 'gone.pth', work_dir=str(path / 'run'))
    with pytest.raises(OSError, match='plain.py/x.json could not be written'):
        evaluate(*(str(path), 'gone.pth'), out=str(path / 'x.json'), out_item='metrics')


def test_weights_that_fit_are_scored(tmp_path):
    """Without counters, with names that wrappers left, a distillation's, averages."""
    plain = run_config(tmp_path / 'work', student(), validate=True)
    distilled = run_config(
        tmp_path / 'work',
        distillation(save_teacher(tmp_path)),
        validate=True,
        hooks=[dict(type='EMAHook')],
    )

    def uncounted(weights):
        return {k: v for k, v in weights.items() if 'num_batches' not in k}

    def wrapped(weights):
        return {f'module.{k}': v for k, v in weights.items()}

    def undistilled(weights):
        return {k: v for k, v in weights.items() if k.startswith('architecture.')}

    whole = save(distilled, tmp_path, 'whole')
    cases = [
        (plain, save(plain, tmp_path, 'uncounted', uncounted)),
        (plain, save(plain, tmp_path, 'wrapped', wrapped)),
        (plain, whole),
        (distilled, whole),
        (distilled, save(distilled, tmp_path, 'undistilled', undistilled)),
        (distilled, str(tmp_path / 'uncounted.pth')),
    ]
    for number, (cfg, weights) in enumerate(cases):
        path, out = tmp_path / f'fit{number}.py', tmp_path / f'{number}.json'
        cfg.dump(path)
        evaluate(str(path), weights, out=str(out), out_item='metrics')()
        assert 'accuracy/top1' in json.loads(out.read_text())


def test_label_free_students_are_of_any_classes(tmp_path):
    """Those in the checkpoint are of the images that were trained on."""
    ckpt = save_teacher(tmp_path)
    model = distillation(ckpt, calculate_student_loss=False)
    cfg = run_config(tmp_path / 'work', model, validate=True)
    cfg.log_level = 'WARNING'
    cfg.dump(tmp_path / 'own.py')
    weights = save(cfg, tmp_path, 'free')
    checkpoint = torch.load(weights)
    checkpoint['meta'] = dict(dataset_meta=dict(classes=tuple('abcdefghij')))
    torch.save(checkpoint, weights)
    evaluate(str(tmp_path / 'own.py'), weights)()
    (log,) = tmp_path.glob('work/*/*.log')
    assert 'Scores compare labels' not in log.read_text()


@pytest.mark.parametrize(
    ('classes', 'said'),
    [
        ('0132456789', "class 2 '3', the test set '2'. Scores compare labels."),
        ('0123456789', ''),
        ('', ''),
    ],
)
def test_classes_of_the_test(classes, said, tmp_path):
    cfg = run_config(tmp_path / 'work', student(), validate=True)
    cfg.log_level = 'WARNING'
    cfg.dump(tmp_path / 'own.py')
    weights = save(cfg, tmp_path, 'student')
    checkpoint = torch.load(weights)
    checkpoint['meta'] = dict(dataset_meta=dict(classes=tuple(classes)))
    torch.save(checkpoint, weights)
    evaluate(str(tmp_path / 'own.py'), weights)()
    (log,) = tmp_path.glob('work/*/*.log')
    assert ('Scores compare labels' in log.read_text()) == bool(said)
    assert said in log.read_text()


def test_metrics_that_are_tensors(tmp_path):
    """A confusion matrix, as lists in texts and as it is in a pickle."""
    cfg = run_config(tmp_path / 'work', student(), validate=True)
    cfg.test_evaluator = [cfg.test_evaluator, dict(type='ConfusionMatrix')]
    cfg.dump(tmp_path / 'own.py')
    weights = save(cfg, tmp_path, 'student')
    found = {}
    for ending in ('json', 'yml', 'pkl'):
        out = str(tmp_path / f'metrics.{ending}')
        evaluate(str(tmp_path / 'own.py'), weights, out=out, out_item='metrics')()
        found[ending] = mmengine.load(out)
    assert found['json'] == found['yml']
    matrix = found['pkl'].pop('confusion_matrix/result')
    assert found['json'].pop('confusion_matrix/result') == matrix.tolist()
    assert matrix.shape == (10, 10) and found['json'] == found['pkl']


def test_config_without_test_set(tmp_path):
    """As of a search, which scores images of validation alone."""
    cfg = run_config(tmp_path / 'work', student(), validate=True)
    weights = save(cfg, tmp_path, 'student')
    for key in ('test_dataloader', 'test_evaluator'):
        cfg[key] = None
    cfg.dump(tmp_path / 'own.py')
    message = r'own\.py has no test_dataloader and no test_evaluator, which'
    with pytest.raises(ValueError, match=message):
        evaluate(str(tmp_path / 'own.py'), weights)


def test_home_in_a_config(tmp_path, monkeypatch):
    """No shell puts it in the place of `~` there."""
    monkeypatch.setenv('HOME', str(tmp_path))
    cfg = run_config('~/work', student())
    assert merge_train_options(cfg).work_dir == str(tmp_path / 'work')
    options = dict(work_dir='~/other')
    assert merge_train_options(cfg, **options).work_dir == str(tmp_path / 'other')


def test_options_for_what_a_config_lacks(tmp_path):
    """Told in a sentence, by the test as by the training."""
    (tmp_path / 'empty.py').write_text('a = 1\n')
    empty, weights = str(tmp_path / 'empty.py'), str(tmp_path / 'x.pth')

    def refused(message, merge, *args, **options):
        with pytest.raises(ValueError, match=message):
            merge(Config.fromfile(empty), *args, **options)

    no_model = r'empty\.py: the model is None; expected dict\(type='
    refused(no_model, merge_test_options, weights)
    refused(no_model, merge_train_options, teacher_ckpt=weights)
    for option in (dict(amp=True), dict(lr=0.1)):
        (name,) = option
        message = rf'--{name}: .*empty\.py has optim_wrapper=None; expected a dict'
        refused(message, merge_train_options, **option)
    refused('--auto-scale-lr: the config', merge_train_options, auto_scale_lr=True)
    (tmp_path / 'empty.py').write_text("model = dict(type='M')\ntest_cfg = None\n")
    message = r'--amp: .*empty\.py has test_cfg=None; expected a dict. Add it, or'
    refused(message, merge_test_options, weights, amp=True)


@pytest.mark.parametrize(
    ('out', 'item', 'message'),
    [
        ('r.json', None, r'pred is written to .* \.pkl, \.pickle.* metrics has \.json'),
        ('r.json', 'pred', 'pred is written to'),
        ('r.txt', 'metrics', r'metrics is written to .*\.json, \.yml'),
        ('r', 'metrics', 'metrics is written to'),
    ],
)
def test_results_that_could_not_be_written(out, item, message):
    """Told at once, not after the evaluation."""
    with pytest.raises(ValueError, match=message):
        evaluate('r18w4_1xb50_digits', 'r18w4_1xb50_digits', out=out, out_item=item)
