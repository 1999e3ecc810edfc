# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Frequency attention for knowledge distillation inside OpenMMLab.

Importing mmfakd checks the versions of the libraries it stands on and prepares the
shims they need on current torch (see :mod:`mmfakd.compat`). Models, data sets and
hooks are imported by the registries when a config first names them.
"""

import os.path
import sys
from typing import TYPE_CHECKING, Any

from .checkpoints.mmengine_loader import replace_mmengine_loaders
from .compat import apply_shims, check_environment
from .compat.best_of_others import leave_best_of_others
from .compat.build_errors import explain_build_errors
from .compat.dataset_copies import forget_copied_objects
from .compat.image_errors import name_unreadable_images
from .compat.import_hook import when_imported
from .compat.late_batches import start_batches_late
from .compat.optimizer_constructors import name_students_as_alone
from .model_zoo.inferencers import guard_inferencers
from .model_zoo.inheritance import let_configs_inherit, let_hub_build
from .version import __version__

# `mmfakd env` says itself what is wrong with an environment.
_words = [os.path.basename(word) for word in sys.argv]
if _words not in (['mmfakd', 'env'], ['-m', 'env']):
    check_environment()
apply_shims()
when_imported('mmengine.runner.checkpoint', replace_mmengine_loaders)
when_imported('mmengine.config.config', let_configs_inherit)
when_imported('mmengine.hub.hub', let_hub_build)
when_imported('mmengine.infer', guard_inferencers)
when_imported('mmengine.hooks.checkpoint_hook', leave_best_of_others)
when_imported('mmengine.registry', explain_build_errors)
when_imported('mmengine.optim.optimizer.default_constructor', name_students_as_alone)
when_imported('mmengine.dataset.base_dataset', forget_copied_objects)
when_imported('mmengine.runner.loops', start_batches_late)
when_imported('mmcv.transforms', name_unreadable_images)

if TYPE_CHECKING:
    from .plain import Distillation, distill

__all__ = ['Distillation', '__version__', 'distill']


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name in ('Distillation', 'distill'):
        from . import plain

        return getattr(plain, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
