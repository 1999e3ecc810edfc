# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import copy
import io
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import ExponentialMovingAverage, PretrainedInit
from mmengine.registry import MODELS
from mmpretrain.engine.hooks import DenseCLHook, SwitchRecipeHook
from mmpretrain.models import CrossEntropyLoss, ImageClassifier
from torch import nn

from mmfakd.models.algorithms import feature_distill as feature_distill_module
from tests.helpers.toy import (
    batch,
    classifier,
    feature_distill,
    layer_distiller,
    losses_of,
    review_distiller,
    step,
    without_gradient,
)
from tests.helpers.within_loop import within_loop


@pytest.fixture
def teacher_file(tmp_path):
    """A checkpoint of the toy teacher."""
    path = tmp_path / 'teacher.pth'
    teacher = MODELS.build(classifier(width=8))
    torch.save(dict(state_dict=teacher.state_dict()), path)
    return str(path)


@pytest.fixture
def log():
    """What the current logger says."""
    stream = io.StringIO()
    logger = MMLogger.get_instance('feature_distill_test')
    logger.addHandler(logging.StreamHandler(stream))
    return stream


def test_losses_are_the_student_s_own_plus_distillation():
    model = feature_distill()
    data = batch()
    losses = losses_of(model, copy.deepcopy(data))
    alone = model.architecture(**model.data_preprocessor(data, True), mode='loss')
    # The second pass in training mode normalises by the same batch.
    torch.testing.assert_close(losses['student.loss'], alone['loss'])
    assert sum(key.startswith('distill.loss') for key in losses) == 4


@pytest.mark.parametrize('distiller', [review_distiller(), layer_distiller()])
def test_every_parameter_gets_a_gradient(distiller):
    model = feature_distill(distiller=distiller)
    step(model, batch())
    assert without_gradient(model) == []


def test_teacher_is_outside_the_module_tree():
    model = feature_distill()
    assert 'teacher' not in model._modules
    assert not any('teacher' in key for key in model.state_dict())
    teacher = {id(p) for p in model.teacher.parameters()}
    assert not teacher & {id(p) for p in model.parameters()}
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_teacher_follows_casts_and_devices():
    model = feature_distill().double()
    assert next(model.teacher.parameters()).dtype == torch.float64
    model.to('meta')
    assert next(model.teacher.parameters()).device.type == 'meta'


def test_teacher_does_not_move():
    """Dropout and norm layers too, after `train()` and a step."""
    model = feature_distill(distiller=layer_distiller())
    model.teacher.backbone.layer1.add_module('drop', nn.Dropout(0.5))
    before = copy.deepcopy(model.teacher.state_dict())
    assert model.train() is model
    assert not any(m.training for m in model.teacher.modules())
    assert all(m.training for m in model.architecture.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        step(model, batch())
        optimizer.step()
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_copies_share_the_teacher():
    model = feature_distill()
    step(model, batch())
    averaged = ExponentialMovingAverage(model)
    assert averaged.module.teacher is model.teacher
    assert not any('teacher' in key for key in averaged.state_dict())


@pytest.mark.parametrize(
    'move',
    [
        lambda model: ExponentialMovingAverage(model, device='meta').module,
        lambda model: copy.deepcopy(model).half(),
        lambda model: copy.deepcopy(model).to('meta'),
    ],
    ids=['averaged model', 'half', 'meta'],
)
def test_what_is_done_to_a_copy_is_not_done_to_the_teacher(move):
    """As `EMAHook(device='cpu')` does it on a GPU."""
    model = feature_distill()
    step(model, batch())
    before = copy.deepcopy(model.teacher.state_dict())
    moved = move(model)
    weight = next(moved.architecture.parameters())
    for theirs in moved.teacher.parameters():
        assert (theirs.device, theirs.dtype) == (weight.device, weight.dtype)
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[key]), key
    step(model, batch())


def test_a_copy_that_is_moved_trains():
    model = feature_distill()
    twin = copy.deepcopy(model).double()
    data = batch()
    expected = losses_of(model, data)
    inputs = twin.data_preprocessor(data, True)
    losses = twin(inputs['inputs'].double(), inputs['data_samples'], mode='loss')
    assert losses.keys() == expected.keys()
    for key, value in losses.items():
        torch.testing.assert_close(value.float(), expected[key], atol=1e-4, rtol=1e-4)


def equal_layers(source, **kwargs):
    """Config of `layer_distiller` between layers of one width, without a connector."""
    cfg = dict(layer_distiller(source, **kwargs), connectors=None)
    del cfg['loss_forward_mappings']['loss_fam']['s_feature']['connector']
    return cfg


@pytest.mark.parametrize(
    ('source', 'mode'),
    [('backbone.layer3', 'backbone'), ('neck.gap', 'neck'), ('head.fc', 'tensor')],
)
def test_auto_takes_the_shallowest_mode(source, mode):
    distiller = equal_layers(source, loss='mmfakd.FFTFeatureLoss')
    # The look at the first step runs it once more.
    model = feature_distill(teacher=classifier(), distiller=distiller, report=False)
    if source != 'backbone.layer3':
        # (N, C) features: an L2 loss instead of one on maps.
        model.distiller.distill_losses['loss_fam'] = MODELS.build(
            dict(type='mmrazor.L2Loss')
        )
    ran = []
    for part in ('backbone', 'neck', 'head'):
        getattr(model.teacher, part).register_forward_hook(
            lambda m, args, out, part=part: ran.append(part)
        )
    losses_of(model, batch())
    assert model._teacher.mode == mode
    depth = dict(backbone=1, neck=2, tensor=3)[mode]
    assert ran == ['backbone', 'neck', 'head'][:depth]


def test_auto_goes_as_deep_as_the_loss():
    """The input of the loss module exists in mode 'loss' only."""
    recorder = dict(target=dict(type='mmrazor.ModuleInputs', source='head.loss_module'))
    distiller = dict(
        type='mmrazor.ConfigurableDistiller',
        student_recorders=recorder,
        teacher_recorders=recorder,
        distill_losses=dict(loss_l2=dict(type='mmrazor.L2Loss')),
        loss_forward_mappings=dict(
            loss_l2=dict(
                s_feature=dict(recorder='target', from_student=True, data_idx=0),
                t_feature=dict(recorder='target', from_student=False, data_idx=0),
            )
        ),
    )
    model = feature_distill(distiller=distiller)
    losses_of(model, batch())
    assert model._teacher.mode == 'loss'


def test_auto_says_what_is_never_reached():
    distiller = layer_distiller()
    mapping = distiller['loss_forward_mappings']['loss_fam']['t_feature']
    mapping['record_idx'] = 3
    model = feature_distill(distiller=distiller)
    with pytest.raises(RuntimeError, match=r"no record for \['feature'\].*record_idx"):
        losses_of(model, batch())


def test_preactivation_records_have_negative_values():
    """In-place activations are switched off wherever they hide."""
    mobilenet = dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(type='MobileNetV2', widen_factor=0.25),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=1280),
    )
    distiller = equal_layers('backbone.layer2.0.conv.1.bn')
    model = feature_distill(
        architecture=mobilenet, teacher=copy.deepcopy(mobilenet), distiller=distiller
    )
    seen = []
    loss = model.distiller.distill_losses['loss_fam']
    loss.register_forward_pre_hook(
        lambda m, args, kwargs: seen.extend(kwargs.values()), with_kwargs=True
    )
    losses_of(model, batch(size=32))
    assert len(seen) == 2 and all(feature.min() < 0 for feature in seen)


def test_student_attributes_are_reachable():
    model = feature_distill()
    assert model.detector is model.architecture
    assert model.backbone is model.architecture.backbone
    assert model.with_neck
    with pytest.raises(AttributeError, match='no_such_thing'):
        _ = model.no_such_thing


@MODELS.register_module(force=True)
class LossOfItsOwn(ImageClassifier):
    """A classifier whose loss stands in no head, as mmpretrain's TimmClassifier."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_module = CrossEntropyLoss()

    def loss(self, inputs, data_samples):
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return dict(loss=self.loss_module(self(inputs), labels))


def test_a_recipe_switches_the_loss_of_the_student():
    student = dict(classifier(), type=LossOfItsOwn)
    model = feature_distill(architecture=student)
    model.init_weights()
    keys = list(model.state_dict())
    data = batch()
    before = losses_of(model, copy.deepcopy(data))
    recipe = dict(action_epoch=1, loss=dict(type='CrossEntropyLoss', loss_weight=8.0))
    runner = SimpleNamespace(model=model, epoch=0, logger=logging.getLogger('switch'))
    SwitchRecipeHook([recipe]).before_train_epoch(runner)
    after = losses_of(model, data)
    torch.testing.assert_close(after['student.loss'], 8 * before['student.loss'])
    assert model.loss_module is model.architecture.loss_module
    assert 'loss_module' not in dict(model.named_children())
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    twin.loss_module = CrossEntropyLoss()
    assert twin.architecture.loss_module is twin.loss_module
    assert model.architecture.loss_module.loss_weight == 8


@MODELS.register_module()
class Ramped(ImageClassifier):
    """A student with a number that a hook sets, as DenseCL has it."""

    loss_lambda = 0.5


def test_a_hook_sets_a_number_of_the_student():
    model = feature_distill(architecture=dict(classifier(), type='Ramped'))
    model.init_weights()
    runner = SimpleNamespace(model=model, iter=0)
    hook = DenseCLHook(start_iters=3)
    hook.before_train(runner)
    found = []
    for runner.iter in range(5):
        hook.before_train_iter(runner, runner.iter)
        found.append(model.architecture.loss_lambda)
    assert found == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert 'loss_lambda' not in vars(model)
    # What nobody has is the distillation's.
    model.further = 1
    assert not hasattr(model.architecture, 'further')


def test_what_is_the_distillation_s_own_stays_so():
    student = MODELS.build(classifier())
    # Modules of a student that have names of the distillation's.
    for name in ('distiller', 'architecture', '_teacher', 'report', 'detector'):
        student.add_module(name, nn.Identity())
    model = feature_distill(architecture=student)
    # As a subclass does while it is built.
    model.neck = nn.Flatten()
    assert 'neck' in dict(model.named_children()) and student.neck is not model.neck
    model.init_weights()
    distiller = copy.deepcopy(model.distiller)
    model.distiller, model.report, model.extra = distiller, False, nn.Identity()
    assert model.architecture is student and model.distiller is distiller
    assert type(student.distiller) is type(student.report) is nn.Identity
    assert 'extra' in dict(model.named_children()) and not model.report


def test_mixup_and_normalisation_are_the_stock_student_s():
    """Teacher and student see one mixed batch, equal to the stock student's."""
    augments = dict(augments=dict(type='Mixup', alpha=0.8))
    preprocessor = dict(
        mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], num_classes=10
    )
    cfg = classifier(train_cfg=augments)
    stock = MODELS.build(
        dict(copy.deepcopy(cfg), data_preprocessor=copy.deepcopy(preprocessor))
    )
    model = feature_distill(architecture=cfg, data_preprocessor=preprocessor)
    seen = []
    for part in (model.architecture.backbone, model.teacher.backbone):
        part.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    data = batch()
    outputs = []
    for owner in (stock, model):
        torch.manual_seed(3)
        import numpy as np

        np.random.seed(3)
        outputs.append(owner.data_preprocessor(copy.deepcopy(data), True))
    torch.testing.assert_close(outputs[0]['inputs'], outputs[1]['inputs'])
    scores = [torch.stack([s.gt_score for s in o['data_samples']]) for o in outputs]
    torch.testing.assert_close(*scores)
    assert ((scores[0] > 0).sum(1) > 1).any(), 'nothing was mixed'
    model(**outputs[1], mode='loss')
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], outputs[1]['inputs'])


def test_teacher_with_other_normalisation_sees_the_same_pixels():
    own = dict(mean=[100.0, 90.0, 80.0], std=[50.0, 51.0, 52.0], to_rgb=True)
    teacher = classifier(width=8, data_preprocessor=dict(own))
    model = feature_distill(
        architecture=classifier(
            data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3)
        ),
        teacher=teacher,
    )
    data = batch()
    seen = []
    model.teacher.backbone.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    losses_of(model, copy.deepcopy(data))
    expected = model.teacher.data_preprocessor(data, False)['inputs']
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


def test_empty_teacher_preprocessor_changes_nothing():
    teacher = classifier(
        width=8, data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3)
    )
    model = feature_distill(teacher=teacher, teacher_preprocessor=dict())
    assert model.teacher_input.is_identity


def test_weights_are_loaded_by_init_weights_only(teacher_file):
    weights = torch.load(teacher_file)['state_dict']
    model = feature_distill(teacher_ckpt=teacher_file)
    key = 'backbone.conv1.weight'
    assert not torch.equal(model.teacher.state_dict()[key], weights[key])
    model.init_weights()
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, weights[key])


def test_building_and_predicting_needs_no_teacher_file(tmp_path):
    model = feature_distill(teacher_ckpt=str(tmp_path / 'gone.pth')).eval()
    predictions = model.val_step(batch())
    assert len(predictions) == 4
    with pytest.raises(FileNotFoundError, match=r'gone\.pth.* `--teacher-ckpt` takes'):
        model.init_weights()


def test_a_student_checkpoint_that_is_gone(teacher_file):
    model = feature_distill(student_ckpt='gone.pth', teacher_ckpt=teacher_file)
    with pytest.raises(FileNotFoundError, match=r'gone\.pth.* `--student-ckpt` takes'):
        model.init_weights()


def test_student_checkpoint_fills_the_student(tmp_path, teacher_file):
    student = MODELS.build(classifier())
    path = tmp_path / 'student.pth'
    torch.save(student.state_dict(), path)
    model = feature_distill(student_ckpt=str(path), teacher_ckpt=teacher_file)
    model.init_weights()
    for key, value in model.architecture.state_dict().items():
        assert torch.equal(value, student.state_dict()[key])


@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', PretrainedInit])
def test_student_checkpoint_makes_a_download_unnecessary(kind, tmp_path, teacher_file):
    cfg = classifier()
    cfg['backbone']['init_cfg'] = dict(
        type=kind, checkpoint='http://127.0.0.1:1/never.pth'
    )
    path = tmp_path / 'student.pth'
    torch.save(MODELS.build(copy.deepcopy(cfg)).state_dict(), path)
    model = feature_distill(
        architecture=cfg, student_ckpt=str(path), teacher_ckpt=teacher_file
    )
    model.init_weights()


def test_truncated_teacher_checkpoint(tmp_path, teacher_file):
    path = tmp_path / 'truncated.pth'
    with open(teacher_file, 'rb') as file:
        path.write_bytes(file.read()[:1000])
    model = feature_distill(teacher_ckpt=str(path))
    with pytest.raises(Exception, match=r'truncated\.pth'):
        model.init_weights()


def test_teacher_checkpoint_of_another_model(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(MODELS.build(classifier(width=4)).state_dict(), path)
    model = feature_distill(teacher_ckpt=str(path))
    with pytest.raises(ValueError, match=r'do not fit.*backbone\.conv1\.weight'):
        model.init_weights()


def test_teacher_without_weights_is_a_loud_warning(log):
    feature_distill().init_weights()
    assert 'THE TEACHER HAS NO WEIGHTS' in log.getvalue()
    assert 'teacher_ckpt' in log.getvalue()


def test_built_teacher_keeps_its_weights(log):
    teacher = MODELS.build(classifier(width=8))
    before = copy.deepcopy(teacher.state_dict())
    model = feature_distill(teacher=teacher)
    model.init_weights()
    assert 'NO WEIGHTS' not in log.getvalue()
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, before[key])


def test_resume_without_teacher_weights_is_refused():
    model = feature_distill()
    model.init_weights()
    with pytest.raises(RuntimeError, match='resumed at iteration 7.*teacher_ckpt'):
        within_loop(lambda: losses_of(model, batch()), iter=7)


def test_step_after_a_training_is_not_a_resume(monkeypatch):
    """A notebook's hub still tells of the training that is over."""
    hub = MessageHub.get_current_instance()
    monkeypatch.setitem(hub.runtime_info, 'iter', 7)
    model = feature_distill()
    model.init_weights()
    step(model, batch())
    assert model.first_step is not None


def test_a_resumed_training_is_looked_at_no_more(monkeypatch):
    """The loop is sought in the stack, which takes its time, in one step alone."""
    model = feature_distill()
    model.init_weights()
    model._teacher.has_weights = True
    steps = []
    module = 'mmfakd.models.algorithms.feature_distill'
    monkeypatch.setattr(f'{module}.iterations_done', lambda: steps.append(1) or 7)
    for _ in range(3):
        step(model, batch())
    before = len(steps)
    step(model, batch())
    assert model.first_step is None and len(steps) == before


def test_going_on_without_teacher_weights_is_not_a_resume():
    model = feature_distill()
    model.init_weights()
    for iteration in range(2):
        within_loop(lambda: losses_of(model, batch()), iter=iteration)


def test_cfg_path_takes_overrides():
    resnet = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
    model = feature_distill(
        architecture=dict(cfg_path=resnet, head=dict(num_classes=7)),
        teacher=dict(cfg_path=resnet),
        distiller=layer_distiller('backbone.layer4', channels=(512, 512)),
    )
    assert model.architecture.head.fc.out_features == 7
    assert model.teacher.head.fc.out_features == 1000
    assert model.data_preprocessor.mean.flatten()[0] == pytest.approx(123.675)


def test_stopped_distillation_trains_the_student_alone():
    model = feature_distill()
    model.distillation_stopped = True
    calls = []
    model.teacher.backbone.register_forward_hook(lambda *args: calls.append(1))
    losses = step(model, batch())
    assert not calls
    assert losses['distill.loss_stopped'] == 0
    # DDP waits for them: there, though zero.
    assert all(p.grad is not None for p in model.parameters())


def test_distillation_that_is_stopped_before_it_begins_is_told_once(
    monkeypatch, teacher_file
):
    texts = []
    monkeypatch.setattr(
        feature_distill_module, 'print_log', lambda text, **kwargs: texts.append(text)
    )
    model = feature_distill(teacher_ckpt=str(teacher_file))
    model.init_weights()
    model.distillation_stopped = True
    step(model, batch())
    step(model, batch())
    (told,) = [text for text in texts if 'NOTHING IS DISTILLED' in text]
    assert 'Give StopDistillHook a `stop_epoch` above 0' in told
    # Let go on, it is looked at as any other: its first step of distillation is yet
    # to come.
    model.distillation_stopped = False
    assert not model._started
    assert model.first_step is None
    losses = within_loop(lambda: step(model, batch()), iter=20)
    assert model.first_step is not None and 'distill.loss_stopped' not in losses
    begun = feature_distill()
    step(begun, batch())
    begun.distillation_stopped = True
    texts.clear()
    step(begun, batch())
    assert texts == []


def test_student_loss_can_be_left_out():
    model = feature_distill(calculate_student_loss=False)
    assert all(key.startswith('distill.') for key in losses_of(model, batch()))


def test_frozen_student_trains_connectors_only():
    model = feature_distill(calculate_student_loss=False, student_trainable=False)
    step(model, batch())
    assert all(p.grad is None for p in model.architecture.parameters())
    assert all(p.grad is not None for p in model.distiller.parameters())


def test_records_are_gone_after_a_step():
    model = feature_distill()
    losses_of(model, batch())
    distiller = model.distiller
    for manager in (distiller.student_recorders, distiller.teacher_recorders):
        assert all(not r.data_buffer for r in manager.recorders.values())


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(teacher_mode='head'), ValueError, "teacher_mode='head'.*'auto'"),
        (dict(teacher_trainable=True), ValueError, 'SingleTeacherDistill'),
        (dict(teacher=nn.Linear(1, 1)), TypeError, 'teacher: got Linear'),
        (dict(architecture=3), TypeError, 'architecture: got int'),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        feature_distill(**changes)


@pytest.mark.parametrize(
    'config', ['yolox/yolox_tiny_8xb8-300e_coco', 'rtmdet/rtmdet_tiny_8xb32-300e_coco']
)
def test_teacher_that_cannot_take_the_student_s_size(config):
    """They join maps that differ by a factor of two, whatever their config says."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    def losses(divisor):
        model = feature_distill(
            architecture=dict(
                cfg_path='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
                data_preprocessor=dict(pad_size_divisor=divisor),
            ),
            teacher=dict(cfg_path=f'mmdet::{config}.py'),
            distiller=layer_distiller('neck', 'mmfakd.FFTFeatureLoss', (256, 96)),
        )
        for side in model.distiller.loss_forward_mappings['loss_fam'].values():
            side['data_idx'] = 0
        sample = DetDataSample(metainfo=dict(img_shape=(90, 120)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10.0, 60.0, 60.0]]), labels=torch.tensor([1])
        )
        image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
        return losses_of(model, dict(inputs=[image], data_samples=[sample]))

    assert losses(32)['distill.loss_fam'].isfinite()
    with pytest.raises(RuntimeError) as error:
        losses(1)
    message = str(error.value)
    assert 'batch of 90 x 120 pixels (Sizes of tensors must match' in message
    assert 'set `pad_size_divisor=32` in the student' in message


def test_unknown_layer_under_the_stock_distiller():
    with pytest.raises(ValueError, match=r"no layer 'backbone.layr3'.*layer3"):
        feature_distill(distiller=layer_distiller('backbone.layr3'))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.gpu
def test_step_under_amp_on_gpu():
    model = feature_distill().cuda()
    with torch.autocast('cuda', dtype=torch.float16):
        losses = losses_of(model, batch())
    model.parse_losses(losses)[0].backward()
    assert without_gradient(model) == []


def test_step_under_bfloat16_autocast():
    model = feature_distill()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = losses_of(model, batch())
    model.parse_losses(losses)[0].backward()
    assert all(value.isfinite() for value in losses.values())
    assert without_gradient(model) == []


def test_no_graph_is_built_where_gradients_are_off():
    model = feature_distill()
    with torch.no_grad():
        losses = losses_of(model, batch())
    assert not any(value.requires_grad for value in losses.values())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize('mode', ['auto', 'backbone'])
def test_teacher_that_changes_the_batch(mode):
    """The student would train on what it leaves."""
    model = feature_distill(distiller=layer_distiller(), teacher_mode=mode)
    model.teacher.backbone.register_forward_pre_hook(
        lambda module, inputs: (inputs[0].sub_(100),)
    )
    with pytest.raises(RuntimeError, match='The teacher .* changes the batch itself'):
        losses_of(model, batch())
