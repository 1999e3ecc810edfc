# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Generated configs as they stand: hooks, rates, weights and levels are safe."""

import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import ClsDataPreprocessor, LinearClsHead

from mmfakd.cli import main
from mmfakd.engine.safety import DISTILLATION_HOOKS, distillation_hooks
from mmfakd.model_zoo.find import config_file, find_config
from mmfakd.model_zoo.inline_models import inline_models
from mmfakd.pairing.code import block, entries
from mmfakd.pairing.connector_rate import connector_lr_mult
from mmfakd.pairing.input_size import measure_images, read_input_size
from mmfakd.pairing.methods import METHODS
from tests.helpers.toy import batch, classifier, step, without_gradient
from tests.helpers.toy_detectors import reid, retinanet


def of_logits(method):
    return METHODS[method].compares == 'logits'


DATA = dict(type='CIFAR10', pipeline=[dict(type='RandomCrop', crop_size=32, padding=4)])


def student(width=4, **backbone):
    cfg = dict(
        default_scope='mmpretrain',
        model=classifier(width),
        data_preprocessor=dict(num_classes=10, mean=[0.0] * 3, std=[255.0] * 3),
        train_dataloader=dict(batch_size=4, num_workers=0, dataset=DATA),
        train_cfg=dict(by_epoch=True, max_epochs=30),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05)),
    )
    cfg['model']['backbone'].update(backbone)
    return cfg


def with_margin(cfg):
    cfg['model']['head']['type'] = 'ArcFaceClsHead'
    return cfg


@pytest.fixture
def make(tmp_path, capsys):
    """Write the config of two whole configs; returns it and what was printed."""

    def run(ours, theirs, *options):
        for name, cfg in (('student', ours), ('teacher', theirs)):
            if not isinstance(cfg, str):
                Config(cfg).dump(tmp_path / f'{name}.py')
        out = tmp_path / 'pair.py'
        names = [
            cfg if isinstance(cfg, str) else str(tmp_path / f'{name}.py')
            for name, cfg in (('student', ours), ('teacher', theirs))
        ]
        main(['pair', *names, '-o', str(out), '--force', *map(str, options)])
        return Config.fromfile(out), capsys.readouterr().out

    return run


@pytest.fixture
def images(tmp_path):
    """Config of a data set of three images, of a class each."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), np.uint8)
    for i, image in enumerate(pixels):
        folder = tmp_path / 'data' / str(i)
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / 'a.png'), image)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5)]
    return dict(
        type='CustomDataset',
        data_prefix=str(tmp_path / 'data'),
        pipeline=[*pipeline, dict(type='PackInputs')],
    )


def build(cfg):
    """The model as the runner builds it."""
    init_default_scope(cfg.default_scope)
    if 'data_preprocessor' in cfg:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    return MODELS.build(cfg.model)


def of_channels(number, width=4, factor=1.0):
    """Config of a student or teacher of images of so many channels."""
    cfg = student(width, in_channels=number)
    numbers = [factor * (i + 1) for i in range(number)]
    cfg['data_preprocessor'].update(mean=numbers, std=numbers, to_rgb=number == 3)
    return cfg


class TestImageChannels:
    """Of student and teacher, where they differ."""

    @pytest.mark.parametrize(
        ('ours', 'theirs', 'picked', 'told'),
        [
            (1, 3, [0, 0, 0], "gets the one of the student's images 3 times"),
            (3, 1, [0], r'WARNING: .*takes images of 1 .*it gets \[0\], in this order'),
            (4, 3, [0, 1, 2], r'WARNING: .*have 4: of these it gets \[0, 1, 2\]'),
        ],
    )
    def test_a_step(self, make, ours, theirs, picked, told):
        """The teacher sees what its own preprocessor would make of these channels."""
        other = of_channels(theirs, 8, factor=20.0)
        cfg, out = make(of_channels(ours), other)
        assert re.search(told, out)
        assert cfg.model.teacher_preprocessor == dict(channels=picked)
        model = build(cfg)
        data = batch(size=32, channels=ours)
        seen = model.data_preprocessor(data, True)['inputs']
        # The student's preprocessor has turned the order of three.
        raw = data['inputs'].flip(1) if ours == 3 else data['inputs']
        own = dict(other['data_preprocessor'], to_rgb=False)
        own = ClsDataPreprocessor(**own)(dict(inputs=raw[:, picked]))['inputs']
        torch.testing.assert_close(model.teacher_input(seen, None), own)
        assert all(v.isfinite().all() for v in step(model, data).values())

    @pytest.mark.parametrize('number', [1, 3, 4])
    def test_equal_ones_need_no_word(self, make, number):
        cfg, out = make(of_channels(number), of_channels(number, 8, factor=20.0))
        assert 'teacher_preprocessor' not in cfg.model
        assert 'teacher takes images' not in out

    def test_one_mean_for_all_channels(self, make):
        """What counts is what the networks take."""
        ours = student()
        ours['data_preprocessor'].update(mean=[0.0], std=[255.0])
        cfg, _ = make(ours, student(8))
        assert 'teacher_preprocessor' not in cfg.model

    def test_too_few(self, make, tmp_path):
        message = 'takes images of 3 channels, and those of .* have 2: .*at most 2'
        with pytest.raises(SystemExit, match=message):
            make(of_channels(2), of_channels(3, 8))
        assert not (tmp_path / 'pair.py').exists()


class TestDistillations:
    @pytest.fixture
    def distillation(self, tmp_path):
        """The config of one; its student is wider than the next."""
        model = dict(
            type='mmfakd.FeatureDistill',
            architecture=classifier(8),
            teacher=classifier(16),
            distiller=dict(type='mmfakd.ReviewDistiller'),
        )
        path = tmp_path / 'assistant.py'
        Config(dict(student(), model=model)).dump(path)
        return str(path)

    def test_its_student_teaches(self, make, distillation):
        cfg, text = make(student(), distillation)
        assert cfg.model.teacher == dict(cfg_path=distillation)
        assert 'The teacher is the student of a mmfakd.FeatureDistill.' in text
        assert cfg.model.distiller.connector.out_channels[0] == 8
        assert cfg.model.distiller.teacher_levels[-1] == 'neck.gap'
        model = build(cfg)
        assert type(model.teacher).__name__ == 'ImageClassifier'
        losses = step(model, batch(size=32))
        assert all(loss.isfinite().all() for loss in losses.values())

    def test_it_is_no_student(self, make, distillation):
        message = r'is a distillation \(mmfakd.FeatureDistill\).*config of its student'
        with pytest.raises(SystemExit, match=message):
            make(distillation, student(8))

    def test_leftovers_of_a_base_model(self, make, distillation, tmp_path):
        """The name of the config tells whose they are; a student is none at all."""
        path = str(tmp_path / 'extra.py')
        cfg = Config.fromfile(distillation)
        cfg.model.backbone = dict(depth=34)
        cfg.dump(path)
        lost = f"{path}': it is a distillation .*'backbone' is no argument of it"
        with pytest.raises(SystemExit, match=lost) as stopped:
            main(['layers', path])
        assert 'teacher' not in str(stopped.value)
        with pytest.raises(SystemExit, match=lost):
            make(student(), path)
        message = 'is a distillation .*config of its student'
        with pytest.raises(SystemExit, match=message):
            make(path, student(8))

    def test_layers_of_its_student(self, distillation, capsys):
        main(['layers', distillation, '--depth', '1'])
        text = capsys.readouterr().out
        assert 'ImageClassifier (student of a mmfakd.FeatureDistill), im' in text
        assert '(N, 32)' in text and 'architecture' not in text


class TestMethods:
    @pytest.mark.parametrize('method', [m for m in METHODS if m != 'crd'])
    def test_a_step_of_each(self, make, method):
        """All that is added learns, and so does the student."""
        cfg, _ = make(student(), student(8), '--method', method, '--warmup', 3)
        model = build(cfg)
        losses = step(model, batch(size=32))
        distilled = [k for k in losses if 'loss' in k and not k.startswith('student')]
        assert distilled and all(losses[k].isfinite().all() for k in distilled)
        factor = next(loss for name, loss in losses.items() if 'warmup' in name)
        assert float(factor) == pytest.approx(1 / 3)
        assert without_gradient(model) == []
        # Only methods with weights of their own get a rate of their own.
        added = any(True for _ in model.distiller.parameters())
        assert ('paramwise_cfg' in cfg.optim_wrapper) == added

    @pytest.mark.parametrize('method', ['pkd', 'cwd', 'at', 'fitnet'])
    def test_detectors(self, make, method):
        pytest.importorskip('mmcv.ops')
        cfgs = [
            dict(model=retinanet(channels=channels), default_scope='mmdet')
            for channels in (8, 16)
        ]
        cfg, _ = make(*cfgs, '--method', method)
        model = build(cfg)
        images = torch.rand(2, 3, 64, 96)
        with torch.no_grad(), model.distiller.teacher_recorders:
            model.teacher.extract_feat(images)
        with model.distiller.student_recorders:
            model.architecture.extract_feat(images)
        losses = model.distiller.compute_distill_losses()
        assert len(losses) == (1 if method == 'fitnet' else 3)
        sum(losses.values()).backward()
        assert model.architecture.backbone.conv1.weight.grad.any()

    def test_images_of_crd(self, make, images):
        """Its banks hold one embedding for each training image."""
        ours = student()
        ours['train_dataloader']['dataset'] = images
        cfg, _ = make(ours, student(8), '--method', 'crd')
        assert cfg.model.distiller.distill_losses.loss_crd.sample_n == 3
        model = build(cfg)
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        step(model, pseudo_collate([dataset[i] for i in range(3)]))
        assert without_gradient(model) == []
        with pytest.raises(SystemExit, match='needs the number of training images'):
            make(student(), student(8), '--method', 'crd')

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (['--loss-weight', 'much'], "'much': expected a number of 0 or more"),
            (['--loss-weight', '-1'], 'expected a number of 0 or more'),
            (['--loss-weight', 'balance:rate=2'], 'balance:ratio=0.5,iters=50'),
            (['--loss-weight', '1,2'], '2 weights for 4 levels'),
            (['--loss-weight', '0'], "'0': a weight of 0 distils nothing"),
            (['--loss-weight', '0,0,0,0'], 'of several at least one.*mmfakd train'),
            (['--method', 'kd', '--loss-weight', '0.0'], 'Give one above 0'),
            (
                ['--method', 'kd', '--loss-weight', 'balance'],
                'balance weights levels, and --method kd has none',
            ),
            (['--warmup', '40'], 'has only 30 epochs'),
        ],
    )
    def test_options_that_do_not_fit(self, make, options, message):
        with pytest.raises(SystemExit, match=message):
            make(student(), student(8), *options)

    def test_kind_of_model(self, make):
        detector = dict(model=retinanet(), default_scope='mmdet')
        with pytest.raises(SystemExit, match='pooled features of classifiers, and .*'):
            make(detector, detector, '--method', 'rkd')

    @pytest.mark.parametrize('method', [m for m in METHODS if of_logits(m)])
    @pytest.mark.parametrize('role', ['student', 'teacher'])
    def test_sigmoids_have_no_softmax(self, make, method, role):
        pair = dict(student=student(), teacher=student(8))
        pair[role]['model']['head']['type'] = 'MultiLabelLinearClsHead'
        pair[role]['model']['head']['loss']['use_sigmoid'] = True
        message = f'softmax over classes, and the {role} .* several labels an image: '
        with pytest.raises(SystemExit, match=message + '.*Use fakd-review'):
            make(*pair.values(), '--method', method)

    @pytest.mark.parametrize('method', [m for m in METHODS if of_logits(m)])
    def test_margins_in_training(self, make, method):
        """The student's logits have them, a teacher's that is evaluated have not."""
        ours, theirs = with_margin(student()), with_margin(student(8))
        message = 'compares logits, and the student .*ArcFaceClsHead.*Use fakd-review'
        with pytest.raises(SystemExit, match=message):
            make(ours, theirs, '--method', method)

    def test_margins_go_with_features_and_as_teachers(self, make):
        assert make(with_margin(student()), student(8))[
            0
        ].model.distiller.student_levels
        cfg, _ = make(student(), with_margin(student(8)), '--method', 'kd')
        assert cfg.model.distiller.teacher_recorders

    def test_several_labels_learn_from_features(self, make):
        ours = student()
        ours['model']['head']['type'] = 'MultiLabelLinearClsHead'
        ours['model']['head']['loss']['use_sigmoid'] = True
        assert 'WARNING: the loss' not in make(ours, student(8))[1]

    @pytest.mark.parametrize('method', [m for m in METHODS if of_logits(m)])
    def test_one_class(self, make, method):
        one = student()
        one['model']['head']['num_classes'] = 1
        with pytest.raises(SystemExit, match='yield one value, of which it is always'):
            make(one, one, '--method', method)

    def test_a_loss_of_sigmoids_for_one_class_an_image(self, make):
        """ImageNet's newer recipes have it, and predict by a softmax all the same."""
        ours = student()
        ours['model']['head']['loss']['use_sigmoid'] = True
        for method in ('kd', 'dist'):
            text = make(ours, student(8), '--method', method)[1]
            assert 'WARNING: the loss' not in text

    @pytest.mark.parametrize('method', [m for m in METHODS if of_logits(m)])
    def test_logits_are_no_levels_to_name(self, make, method):
        assert '--levels' not in make(student(), student(8), '--method', method)[1]

    @pytest.mark.parametrize(
        ('method', 'levels', 'message'),
        [
            ('at', 'backbone.layer3,neck.gap', 'neck.gap: .* maps, and .* a vector'),
            ('fitnet', 'backbone.layer3,neck.gap', 'neck.gap: .* a vector. Leave it'),
            (
                'ofd',
                'backbone.layer2,backbone.layer3.0.conv1=backbone.layer3.0.conv1',
                'backbone.layer3.0.conv1: .* end in a batch norm',
            ),
            ('rkd', 'backbone.layer3,neck.gap', 'backbone.layer3: .* one pooled'),
        ],
    )
    def test_no_named_level_is_dropped_in_silence(self, make, method, levels, message):
        with pytest.raises(SystemExit, match=f'--levels {message}'):
            make(student(), student(8), '--method', method, '--levels', levels)

    @pytest.mark.parametrize('method', ['fakd-review', 'reviewkd'])
    def test_a_review_goes_from_shallow_to_deep(self, make, method):
        options = '--method', method, '--levels', 'neck.gap,backbone.layer1'
        message = (
            '--levels neck.gap,backbone.layer1: levels of the student run deep to '
            r"shallow: 'neck.gap', 'backbone.layer1' have sizes \[\(1, 1\), "
            f'.*--method {method} expects shallow to deep'
        )
        with pytest.raises(SystemExit, match=message):
            make(student(), student(8), *options)

    @pytest.mark.parametrize(
        ('method', 'levels'),
        [
            ('fakd-layer', ['neck.gap', 'backbone.layer1']),
            ('at', ['backbone.layer3', 'backbone.layer1']),
            # Of one size.
            ('fakd-review', ['backbone.layer2', 'backbone.layer2.0']),
            # One that lies between others may be larger.
            ('reviewkd', ['backbone.layer2', 'backbone.layer1', 'neck.gap']),
        ],
    )
    def test_levels_stay_in_the_order_that_they_are_named_in(
        self, make, method, levels
    ):
        options = '--method', method, '--levels', ','.join(levels)
        cfg, _ = make(student(), student(8), *options)
        assert cfg.model.distiller.student_levels == levels

    def test_a_level_without_weight_beside_others(self, make):
        cfg, _ = make(student(), student(8), '--loss-weight', '0,1,0,0.5')
        assert cfg.model.distiller.loss_weight == [0, 1, 0, 0.5]

    @pytest.mark.parametrize('method', ['crd', 'dkd', 'nkd'])
    def test_labels_that_are_mixed(self, make, method):
        mixed = student()
        mixed['model']['train_cfg'] = dict(augments=dict(type='Mixup', alpha=0.8))
        with pytest.raises(SystemExit, match='one class an image.*Use kd or dist'):
            make(mixed, student(8), '--method', method)

    @pytest.mark.parametrize('method', ['crd', 'dkd', 'nkd'])
    def test_mixing_that_a_hook_switches_on(self, make, method):
        mixed = student()
        mixup = dict(augments=dict(type='Mixup', alpha=0.8))
        recipe = dict(action_epoch=20, batch_augments=mixup)
        mixed['custom_hooks'] = [dict(type='SwitchRecipeHook', schedule=[recipe])]
        message = f'--method {method} needs .* SwitchRecipeHook .*from epoch 20.*Use kd'
        with pytest.raises(SystemExit, match=message):
            make(mixed, student(8), '--method', method)

    def test_mixing_that_no_hook_switches_on(self, make):
        """Epochs of an iteration loop never come, and another hook may have more."""
        mixed = student()
        recipe = dict(action_epoch=20, batch_augments=dict(augments=dict(type='Mixup')))
        schedule = dict(stem=dict(until=1), head=dict(until=2))
        mixed['custom_hooks'] = [
            dict(type='SwitchRecipeHook', schedule=[recipe]),
            dict(type='FreezeScheduleHook', schedule=schedule),
        ]
        mixed['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=9)
        make(mixed, student(8), '--method', 'dkd')

    def test_ofd_needs_a_batch_norm(self, make):
        teacher = student(8, norm_cfg=dict(type='GN', num_groups=4))
        with pytest.raises(SystemExit, match='end in a batch norm'):
            make(student(), teacher, '--method', 'ofd')


class TestWeights:
    def test_numbers(self, make):
        weight = '1,0.5,0.25,0'
        cfg, _ = make(student(), student(8), '--loss-weight', weight)
        assert cfg.model.distiller.loss_weight == [1, 0.5, 0.25, 0]
        cfg, _ = make(student(), student(8), '--method', 'ofd', '--loss-weight', 2)
        assert cfg.model.distiller.loss_weight == [0.5, 1, 2]
        cfg, _ = make(student(), student(8), '--method', 'kd', '--loss-weight', 3)
        assert cfg.model.distiller.distill_losses.loss_kl.loss_weight == 3

    def test_balance(self, make):
        cfg, text = make(
            student(), student(8), '--loss-weight', 'balance:ratio=0.5,iters=7'
        )
        expected = dict(type='balance', ratio=0.5, iters=7)
        assert cfg.model.distiller.loss_weight == expected
        assert 'Loss weight: found by the first iterations' in text
        assert build(cfg).distiller.loss_weight.iters == 7

    @pytest.mark.parametrize('default', ['1', 'balance'])
    def test_either_default(self, make, monkeypatch, default):
        """One constant decides; methods without levels keep their numbers."""
        monkeypatch.setattr('mmfakd.pairing.plan.DEFAULT_LOSS_WEIGHT', default)
        cfg, _ = make(student(), student(8))
        weight = cfg.model.distiller.loss_weight
        assert weight == (1 if default == '1' else dict(type='balance'))
        cfg, _ = make(student(), student(8), '--method', 'kd')
        assert cfg.model.distiller.distill_losses.loss_kl.loss_weight == 1

    def test_warm_up_in_an_iteration_loop(self, make):
        ours = student()
        ours['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=100)
        cfg, _ = make(ours, student(8), '--warmup', 50)
        expected = dict(by_epoch=False, begin=0, end=50)
        assert cfg.model.distiller.warmup == expected


class TestRates:
    def test_what_the_student_says_stays(self, make):
        ours = student()
        keys = {'backbone.layer1': dict(lr_mult=0.5), 'head': dict(decay_mult=0.0)}
        ours['optim_wrapper']['paramwise_cfg'] = dict(
            norm_decay_mult=0.0, custom_keys=keys
        )
        cfg, text = make(ours, student(8))
        paramwise = cfg.optim_wrapper.paramwise_cfg
        assert paramwise.custom_keys == dict(keys, distiller=dict(lr_mult=10))
        assert paramwise.norm_decay_mult == 0
        assert 'Connectors learn 10 times as fast as the student, under AdamW' in text
        model = build(cfg)
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        rates = {id(p): g['lr'] for g in groups for p in g['params']}
        for name, parameter in model.named_parameters():
            factor = 10 if name.startswith('distiller') else 1
            factor = 0.5 if 'backbone.layer1' in name else factor
            assert rates[id(parameter)] == pytest.approx(1e-3 * factor)

    @pytest.mark.parametrize(
        ('kind', 'mult'),
        [
            ('Adam', 10),
            ('torch.optim.AdamW', 10),
            (torch.optim.NAdam, 10),
            ('Lamb', 10),
            ('mmpretrain.Adan', 10),
            ('Lion', 10),
            ('SGD', None),
            ('LARS', None),
            ('DAdaptAdam', None),
        ],
    )
    def test_of_adam_and_its_relatives(self, kind, mult):
        wrapper = dict(optimizer=dict(type=kind, lr=1e-3), paramwise_cfg=None)
        assert connector_lr_mult(Config(dict(optim_wrapper=wrapper))) == mult
        keys = dict(custom_keys=dict(distiller=dict(lr_mult=2)))
        wrapper['paramwise_cfg'] = keys
        assert connector_lr_mult(Config(dict(optim_wrapper=wrapper))) is None
        assert connector_lr_mult(Config({})) is None

    def test_no_rate_above_a_hundredth(self):
        for rate, mult in ((1e-4, 10), (4e-3, 2.5), (1e-2, None), (1, None)):
            wrapper = dict(optimizer=dict(type='AdamW', lr=rate))
            assert connector_lr_mult(Config(dict(optim_wrapper=wrapper))) == mult


class TestHooks:
    @pytest.mark.parametrize(
        'name',
        [
            'rtmdet_tiny_8xb32-300e_coco',
            'yolox_s_8xb8-300e_coco',
            'convnext-tiny_32xb128_in1k',
        ],
    )
    def test_none_of_the_student_is_lost(self, name, tmp_path, monkeypatch):
        """EMA and the switch of the pipeline among them; the runner is a real one."""
        if '_coco' in name:
            pytest.importorskip('mmcv.ops')
        monkeypatch.setattr(Runner, 'build_model', lambda *_: torch.nn.Linear(1, 1))
        config = find_config(name)
        stock = Config.fromfile(config_file(config))
        hooks = block(
            'default_hooks = dict(', entries(distillation_hooks(stock), 84), end=''
        )
        path = tmp_path / 'pair.py'
        path.write_text('\n'.join([f"_base_ = '{config}'", *hooks]))
        alone, ours = (self.kinds(c, tmp_path) for c in (stock, Config.fromfile(path)))
        added = [kind.rpartition('.')[2] for kind in DISTILLATION_HOOKS.values()]
        assert sorted(ours) == sorted(
            [*(kind for kind in alone if kind != 'CheckpointHook'), *added]
        )
        kept = [kind for kind in ours if kind not in added]
        assert kept == [kind for kind in alone if kind != 'CheckpointHook']

    def kinds(self, cfg, folder):
        init_default_scope(cfg.default_scope)
        cfg.update(work_dir=str(folder), log_level='ERROR')
        return [type(hook).__name__ for hook in Runner.from_cfg(cfg).hooks]

    def checkpoint(self, own, **cfg):
        cfg = Config(dict(default_hooks=dict(checkpoint=own), **cfg))
        return distillation_hooks(cfg).get('checkpoint')

    def test_few_checkpoints_are_kept(self):
        """Unless the student's config says how many, and which is the best."""
        ours = dict(type='mmfakd.SafeCheckpointHook')
        stock = dict(type='CheckpointHook', interval=1)
        assert self.checkpoint(stock) == dict(ours, max_keep_ckpts=3)
        scored = dict(
            val_dataloader=dict(dataset={}), val_evaluator=[dict(type='CocoMetric')]
        )
        best = dict(ours, max_keep_ckpts=3, save_best='auto')
        assert self.checkpoint(stock, **scored) == best
        own = dict(stock, max_keep_ckpts=-1, save_best=None)
        assert self.checkpoint(own, **scored) == ours
        # The first score is that of a class, or of unknown sense.
        for metric in (dict(type='CocoMetric', classwise=True), dict(type='Mine')):
            scored['val_evaluator'] = metric
            assert 'save_best' not in self.checkpoint(stock, **scored)

    def test_a_checkpoint_hook_of_the_users_own_stays(self):
        assert self.checkpoint(dict(type='MyCheckpointHook', interval=2)) is None
        assert self.checkpoint(None) is None

    def test_hooks_are_not_there_twice(self):
        mine = [dict(type='mmfakd.CheckFiniteHook', interval=5), Hook()]
        hooks = distillation_hooks(Config(dict(custom_hooks=mine)))
        assert 'check_finite' not in hooks and 'student' in hooks


class TestFrozen:
    def test_a_stage(self, make):
        """What remains does not take the next stage for the stem."""
        cfg, text = make(student(frozen_stages=1), student(8))
        levels = ['backbone.layer2', 'backbone.layer3', 'neck.gap']
        assert cfg.model.distiller.student_levels == levels
        assert 'which are left out: backbone.layer1. They are frozen' in text

    @pytest.mark.parametrize('value', [0, 0.0])
    def test_a_rate_of_zero(self, make, value):
        ours = student()
        keys = {f'backbone.{p}': dict(lr_mult=value) for p in ('layer1', 'conv', 'bn')}
        ours['optim_wrapper']['paramwise_cfg'] = dict(custom_keys=keys)
        cfg, text = make(ours, student(8))
        assert cfg.model.distiller.student_levels[0] == 'backbone.layer2'
        assert 'left out: backbone.layer1.' in text

    def test_all(self, make):
        ours = student()
        keys = dict(backbone=dict(lr_mult=0))
        ours['optim_wrapper']['paramwise_cfg'] = dict(custom_keys=keys)
        with pytest.raises(SystemExit, match='learns nothing from any of its levels'):
            make(ours, student(8))

    def test_neck(self, make):
        pytest.importorskip('mmcv.ops')
        frozen = dict(model=retinanet(), default_scope='mmdet')
        frozen['model']['backbone']['frozen_stages'] = 4
        frozen['optim_wrapper'] = dict(
            optimizer=dict(type='SGD', lr=1),
            paramwise_cfg=dict(custom_keys=dict(neck=dict(lr_mult=0))),
        )
        teacher = dict(model=retinanet(width=16), default_scope='mmdet')
        with pytest.raises(SystemExit, match=r'flows back from neck\[0\], neck'):
            make(frozen, teacher)

    def test_within_a_checkpointed_block(self, make):
        """Its first run is out of autograd's sight; the stage's output is not."""
        ours = student(with_cp=True)
        cfg, _ = make(ours, student(8))
        assert len(cfg.model.distiller.student_levels) == 4
        with pytest.raises(SystemExit, match='no gradient flows back'):
            make(ours, student(8), '--levels', 'backbone.layer2.0.conv1')


@MODELS.register_module(force=True)
class PairsHead(LinearClsHead):
    """Its loss wants more than classes and scores."""

    def loss(self, feats, data_samples, **kwargs):
        return dict(loss=self(feats)[data_samples[0].partner].sum())


class TestTraining:
    def test_a_model_of_several_tasks(self, make):
        ours = student()
        plain = dict(type='LinearClsHead', num_classes=5)
        several = dict(type='MultiLabelLinearClsHead', num_classes=3)
        nested = dict(type='MultiTaskHead', task_heads=dict(c=plain))
        ours['model']['head'] = dict(
            type='MultiTaskHead',
            in_channels=16,
            task_heads=dict(a=plain, b=several, n=nested),
        )
        cfg, text = make(ours, student(8, frozen_stages=1))
        assert 'backbone.layer1' in cfg.model.distiller.student_levels
        assert 'WARNING: the loss' not in text
        frozen = dict(ours, model=dict(ours['model']))
        frozen['model']['backbone'] = dict(ours['model']['backbone'], frozen_stages=1)
        _, text = make(frozen, student(8))
        assert 'which are left out: backbone.layer1. They are frozen' in text
        with pytest.raises(SystemExit, match='yields just its logits'):
            make(ours, student(8), '--method', 'kd')

    @pytest.mark.parametrize('method', ['fakd-review', 'kd'])
    def test_a_loss_that_wants_more(self, make, method):
        """What has not been tried is told, and not refused."""
        ours = student(frozen_stages=1)
        ours['model']['head'] = dict(type='PairsHead', num_classes=10, in_channels=16)
        cfg, text = make(ours, student(8), '--method', method)
        told = 'fails on a dummy batch (AttributeError: '
        assert f'WARNING: the loss of the student {told}' in text
        if method == 'fakd-review':
            assert 'backbone.layer1' not in cfg.model.distiller.student_levels

    def test_re_identification(self, make):
        """Its batches are one sample of several images."""
        pytest.importorskip('mmcv.ops')
        structures = pytest.importorskip('mmdet.structures')
        ours, theirs = (
            dict(default_scope='mmdet', model=reid(width)) for width in (4, 8)
        )
        with pytest.raises(SystemExit, match='student .* yields an embedding'):
            make(ours, theirs, '--method', 'kd', '--input-size', 32)
        cfg, text = make(ours, theirs, '--input-size', 32)
        assert 'WARNING: the loss' not in text
        model = build(cfg)
        labels = structures.ReIDDataSample().set_gt_label([0, 0, 1, 1])
        images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
        losses = step(model, dict(inputs=[images], data_samples=[labels]))
        assert 'student.triplet_loss' in losses and 'distill.loss_level0' in losses
        assert without_gradient(model) == []


class TestPooled:
    def test_last_of_several(self, make):
        """One pooling serves all stages, and the head classifies the last vector."""
        ours = student(out_indices=(0, 1, 2))
        cfg, _ = make(ours, student(8, out_indices=(0, 1, 2)))
        level = dict(recorder='neck.gap', record_idx=2)
        assert cfg.model.distiller.student_levels[-1] == level
        assert cfg.model.distiller.teacher_levels[-1] == level
        assert cfg.model.distiller.connector.in_channels[-1] == 16
        model = build(cfg)
        step(model, batch(size=32))
        assert without_gradient(model) == []


class TestSizes:
    def read(self, scope, *pipeline):
        dataset = dict(type='Images', pipeline=list(pipeline))
        cfg = dict(default_scope=scope, train_dataloader=dict(dataset=dataset))
        read = read_input_size(Config(cfg))
        return read and (read.height, read.width, read.fixed)

    @pytest.mark.parametrize(
        ('scope', 'transform', 'size'),
        [
            ('mmpretrain', dict(type='RandomResizedCrop', scale=(96, 64)), (96, 64)),
            ('mmpretrain', dict(type='RandomCrop', crop_size=(96, 64)), (96, 64)),
            ('mmpretrain', dict(type='Resize', scale=(96, 64)), (64, 96)),
            ('mmdet', dict(type='mmpretrain.RandomCrop', crop_size=(96, 64)), (96, 64)),
            ('mmdet', dict(type='RandomCrop', crop_size=(96, 64)), (64, 96)),
            ('mmdet', dict(type='Pad', size=(96, 64)), (64, 96)),
            ('mmpretrain', dict(type='torchvision/Resize', size=(96, 64)), (96, 64)),
            (
                'mmpretrain',
                dict(type='torchvision/RandomResizedCrop', size=176, scale=(0.08, 1.0)),
                (176, 176),
            ),
            (
                'mmdet',
                dict(type='Albu', transforms=[dict(type='Resize', height=9, width=7)]),
                (9, 7),
            ),
            (
                'mmpretrain',
                dict(type='Compose', transforms=[dict(type='Resize', scale=48)]),
                (48, 48),
            ),
        ],
    )
    def test_order_of_height_and_width(self, scope, transform, size):
        assert self.read(scope, transform) == (*size, True)

    def test_many_sizes(self):
        for transform in (
            dict(type='RandomResize', scale=(96, 64), ratio_range=(0.5, 2)),
            dict(type='RandomCrop', crop_type='absolute_range', crop_size=(64, 96)),
        ):
            assert self.read('mmdet', transform) == (64, 96, False)
        assert self.read('mmpretrain', dict(type='torchvision/Resize', size=9)) is None

    def test_pipeline_that_does_not_say(self, images):
        """The first images are measured, and no random number is drawn."""
        cfg = dict(default_scope='mmpretrain', train_dataloader=dict(dataset=images))
        state = np.random.get_state()[1].copy()
        size = measure_images(Config(cfg))
        assert (size.height, size.width, size.fixed) == (40, 56, True)
        assert (np.random.get_state()[1] == state).all()
        assert measure_images(Config({})) is None

    def test_of_a_detectors_own_images(self, make, tmp_path):
        pytest.importorskip('mmcv.ops')
        resize = dict(type='Resize', scale=(250, 180), keep_ratio=True)
        ours = dict(model=retinanet(), default_scope='mmdet')
        dataset = dict(type='CocoDataset', pipeline=[resize])
        ours['train_dataloader'] = dict(dataset=dataset)
        teacher = dict(model=retinanet(width=16), default_scope='mmdet')
        _, text = make(ours, teacher)
        rows = [line.split() for line in text.splitlines()]
        assert ['neck[0]', '16', '24x32'] * 2 in rows
        assert 'images of 180x250, and others, by Resize' in text
        written = (tmp_path / 'pair.py').read_text()
        assert 'for batches of 192 x 256' in written
        assert 'data_idx=1),  # 16 x 12 x 16, 16' in written


NEW_STYLE = """\
from mmengine.config import read_base
from mmpretrain.models import CrossEntropyLoss, GlobalAveragePooling, ImageClassifier
from mmpretrain.models import LinearClsHead, ResNet_CIFAR
from torch.optim import AdamW

with read_base():
    from .common import *

model = dict(
    type=ImageClassifier,
    backbone=dict(
        type=ResNet_CIFAR, depth=18, stem_channels={width}, base_channels={width},
        num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(
        type=LinearClsHead, num_classes=10, in_channels=4 * {width},
        loss=dict(type=CrossEntropyLoss)),
)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3))
"""
COMMON = """\
from mmengine.hooks import CheckpointHook
from mmpretrain.datasets import CIFAR10
from mmpretrain.datasets.transforms import RandomCrop

train_dataloader = dict(
    dataset=dict(type=CIFAR10, pipeline=[dict(type=RandomCrop, crop_size=32)]))
train_cfg = dict(by_epoch=True, max_epochs=2)
data_preprocessor = dict(num_classes=10, mean=[0.0] * 3, std=[255.0] * 3)
default_scope = 'mmpretrain'
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=7))
"""


class TestNewStyle:
    """Configs in pure Python name classes, and inherit by an import."""

    @pytest.fixture
    def paths(self, tmp_path):
        (tmp_path / 'common.py').write_text(COMMON)
        for name, width in (('ours', 4), ('theirs', 8)):
            path = tmp_path / f'{name}.py'
            path.write_text(NEW_STYLE.replace('{width}', str(width)))
        return str(tmp_path / 'ours.py'), str(tmp_path / 'theirs.py')

    def test_student(self, make, paths):
        cfg, _ = make(*paths)
        assert cfg.default_hooks.checkpoint == dict(
            type='mmfakd.SafeCheckpointHook', interval=7, max_keep_ckpts=3
        )
        keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
        assert keys == dict(distiller=dict(lr_mult=10))
        assert cfg.optim_wrapper.optimizer.lr == 1e-3
        assert cfg.train_dataloader.dataset.type.__name__ == 'CIFAR10'
        model = build(cfg)
        step(model, batch(size=32))
        assert without_gradient(model) == []

    def test_teacher_of_an_old_student(self, make, paths):
        model = build(make(student(), paths[1])[0])
        step(model, batch(size=32))
        assert without_gradient(model) == []

    def test_name_that_cannot_be_imported(self, make, paths, tmp_path):
        path = tmp_path / 'my-student.py'
        path.write_text((tmp_path / 'ours.py').read_text())
        with pytest.raises(SystemExit, match='cannot be imported as my-student'):
            make(str(path), paths[1])

    def test_student_whose_batches_are_padded(self, make, tmp_path):
        """YOLOX halves evenly; the config does not know where it is."""
        pytest.importorskip('mmcv.ops')
        pipeline = [dict(type='Resize', scale=(333, 200), keep_ratio=True)]
        loader = dict(dataset=dict(type='CocoDataset', pipeline=pipeline))
        (tmp_path / 'common.py').write_text(
            f"default_scope = 'mmdet'\ntrain_dataloader = {loader}\n"
        )
        model = retinanet()
        model['data_preprocessor'] = dict(type='DetDataPreprocessor')
        path = tmp_path / 'ours.py'
        path.write_text(
            'from mmengine.config import read_base\n\n'
            f'with read_base():\n    from .common import *\n\nmodel = {model}\n'
        )
        teacher = 'yolox_tiny_8xb8-300e_coco'
        cfg, text = make(str(path), teacher)
        assert 'pads batches to multiples of 32' in text
        inline_models(cfg)
        student = cfg.model.architecture
        assert student.type == 'RetinaNet'
        assert student.data_preprocessor.pad_size_divisor == 32
