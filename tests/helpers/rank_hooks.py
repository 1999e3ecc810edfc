# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Hooks that the distributed tests put into a training."""

import os
import os.path as osp
import time

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm


@HOOKS.register_module()
class NormEval(Hook):
    """Norm layers in evaluation mode: their statistics depend on the batch size."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@HOOKS.register_module()
class SaveRank(Hook):
    """What every rank ends with."""

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        path = osp.join(runner.work_dir, f'rank{get_rank()}.pth')
        torch.save(model.state_dict(), path)


@HOOKS.register_module()
class Pace(Hook):
    """Steps that last longer, by `PACE` seconds."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        time.sleep(float(os.environ.get('PACE', 0)))
