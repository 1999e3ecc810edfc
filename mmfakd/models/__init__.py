# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Models: backbones, layers, connectors, losses, distillers and algorithms."""

from .algorithms import *  # noqa: F403
from .backbones import *  # noqa: F403
from .connectors import *  # noqa: F403
from .distillers import *  # noqa: F403
from .layers import *  # noqa: F403
from .losses import *  # noqa: F403
