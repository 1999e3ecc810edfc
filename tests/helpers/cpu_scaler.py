# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""A loss scaler in trainings on a CPU, PyTorch's own."""

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

needs_cpu_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'), reason='no loss scaler for CPUs'
)


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmpOptimWrapper(AmpOptimWrapper):
    """MMEngine's wrapper, which asks for a GPU, with the scaler for CPUs."""

    def __init__(self, init_scale=1024.0, growth_interval=1000, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler(
            'cpu', init_scale=init_scale, growth_interval=growth_interval
        )
