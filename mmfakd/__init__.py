# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Frequency attention for knowledge distillation inside OpenMMLab.

Importing mmfakd checks the versions of the libraries it stands on and prepares the
shims they need on current torch (see :mod:`mmfakd.compat`). Models, data sets and
hooks are imported by the registries when a config first names them.
"""

import os.path
import sys

from .checkpoints.mmengine_loader import replace_mmengine_loaders
from .compat import apply_shims, check_environment
from .compat.build_errors import explain_build_errors
from .compat.image_errors import name_unreadable_images
from .compat.import_hook import when_imported
from .version import __version__

# `mmfakd env` says itself what is wrong with an environment.
_words = [os.path.basename(word) for word in sys.argv]
if _words not in (['mmfakd', 'env'], ['-m', 'env']):
    check_environment()
apply_shims()
when_imported('mmengine.runner.checkpoint', replace_mmengine_loaders)
when_imported('mmengine.registry', explain_build_errors)
when_imported('mmcv.transforms', name_unreadable_images)

__all__ = ['__version__']
