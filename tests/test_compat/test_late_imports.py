# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Libraries are imported when something of theirs is used, not for its name."""

import pytest

RAZOR = 'import sys, mmfakd, mmrazor.models, mmrazor.engine\n'
INPUTS = (
    RAZOR
    + """
from mmrazor.models.task_modules.demo_inputs import default_demo_inputs as module
"""
)
HEAVY = {'mmdet.models', 'mmseg.models', 'scipy.stats', 'sklearn.tree'}


def test_shim_is_needed(run_python):
    """Plain libraries import them; else this shim can go."""
    pytest.importorskip('mmdet.models')
    run_python("""
import sys, mmfakd
from mmfakd.compat import late_imports
for hook in sys.meta_path:
    for name in (*late_imports._IMPORTERS, late_imports._EXTENSION):
        getattr(hook, 'watched', {}).pop(name, None)
import mmrazor.models
assert 'mmdet.models' in sys.modules
""")


def test_what_is_used_is_real_and_nothing_else_is_imported(run_python):
    """A detector is known once it exists; one process, as it imports everything."""
    pytest.importorskip('mmdet.models')
    run_python(
        INPUTS
        + f"""
import mmpretrain.models
assert not {HEAVY} & set(sys.modules)
"""
        + """
import torch
def inputs_for(model):
    return module.get_default_demo_input_class(model, None).__name__
assert inputs_for(torch.nn.Identity()) == 'BaseDemoInput'

from mmrazor.models.distillers import ofd_distiller
from mmrazor.models.task_modules.predictor import metric_predictor
from mmrazor.models.task_modules.predictor.handler import carts_handler, mlp_handler
loss = mlp_handler.SmoothL1Loss(beta=2.0)
assert type(loss).__module__ == 'mmdet.models.losses.smooth_l1_loss'
assert loss.beta == 2.0 and isinstance(loss, mlp_handler.SmoothL1Loss)
assert round(ofd_distiller.norm.cdf(0.0), 6) == 0.5
assert metric_predictor.stats.kendalltau([1, 2, 3], [1, 2, 3])[0] == 1
tree = carts_handler.DecisionTreeRegressor().fit([[0], [1]], [2, 3])
assert tree.predict([[1]]) == [3]

from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmdet.models.roi_heads.shared_heads.res_layer import ResLayer
from mmdet.registry import MODELS
from mmpretrain.models.utils import ResLayerExtraNorm
assert issubclass(ResLayerExtraNorm, ResLayer)
assert MODELS.get('ResLayerExtraNorm') is ResLayerExtraNorm
config = get_config('mmdet::gfl/gfl_r50_fpn_1x_coco.py')
config.model.backbone.update(depth=18, init_cfg=None)
config.model.neck.in_channels = [64, 128, 256, 512]
with DefaultScope.overwrite_default_scope('mmdet'):
    detector = MODELS.build(config.model)
assert isinstance(detector, module.BaseDetector)
assert not isinstance(detector, module.BaseSegmentor)
assert inputs_for(detector) == 'DefaultMMDetDemoInput'
"""
    )


def test_layer_of_mmpretrain_joins_those_of_mmdet_that_are_there(run_python):
    pytest.importorskip('mmdet.models')
    run_python("""
import mmfakd, mmdet.models, mmpretrain.models
from mmdet.registry import MODELS
from mmpretrain.models.utils import ResLayerExtraNorm
assert MODELS.get('ResLayerExtraNorm') is ResLayerExtraNorm
""")


def test_missing_library_is_named_when_it_is_used(run_python):
    """Neither at the import of mmrazor nor by a type check."""
    error = run_python(
        """
import sys, mmfakd
class Missing:
    def find_spec(self, name, path, target=None):
        if name.partition('.')[0] in ('mmdet', 'mmseg'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
"""
        + INPUTS
        + """
assert not isinstance(module, module.BaseDetector)
from mmrazor.models.task_modules.predictor.handler import mlp_handler
mlp_handler.SmoothL1Loss()
""",
        check=False,
    ).stderr
    assert "No module named 'mmdet" in error.splitlines()[-1]
