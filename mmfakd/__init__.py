# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Frequency attention for knowledge distillation inside OpenMMLab.

Importing mmfakd checks the versions of the libraries it stands on and prepares the
shims they need on current torch (see :mod:`mmfakd.compat`). Models, data sets and
hooks are imported by the registries when a config first names them.
"""

import os.path
import sys

from .compat import apply_shims, check_environment
from .version import __version__

# `mmfakd env` says itself what is wrong with an environment.
_words = [os.path.basename(word) for word in sys.argv]
if _words not in (['mmfakd', 'env'], ['-m', 'env']):
    check_environment()
apply_shims()

__all__ = ['__version__']
