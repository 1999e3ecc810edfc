# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmfakd's registries, each a child of MMEngine's registry of the same name.

``locations`` names the package that MMEngine imports on the first look-up, so
``type='mmfakd.Name'`` builds from any scope without ``custom_imports``.
Registries in which mmfakd has nothing of its own exist for
``default_scope='mmfakd'``: MMEngine warns at every build whose registry has no
child of that scope.

Reference: https://mmengine.readthedocs.io/en/latest/advanced_tutorials/registry.html
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import EVALUATOR as MMENGINE_EVALUATOR
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import INFERENCERS as MMENGINE_INFERENCERS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNER_CONSTRUCTORS as MMENGINE_RUNNER_CONSTRUCTORS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry


def _child(parent: Registry, location: str) -> Registry:
    """Make mmfakd's child of one MMEngine registry, filled from ``location``."""
    return Registry(
        parent.name, scope='mmfakd', parent=parent, locations=[f'mmfakd.{location}']
    )


# Networks, layers, connectors, losses, distillers and algorithms.
MODELS = _child(MMENGINE_MODELS, 'models')
WEIGHT_INITIALIZERS = _child(MMENGINE_WEIGHT_INITIALIZERS, 'models')
TASK_UTILS = _child(MMENGINE_TASK_UTILS, 'models')

# Data.
DATASETS = _child(MMENGINE_DATASETS, 'datasets')
DATA_SAMPLERS = _child(MMENGINE_DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child(MMENGINE_TRANSFORMS, 'datasets')

# Everything that runs a model.
RUNNERS = _child(MMENGINE_RUNNERS, 'engine')
RUNNER_CONSTRUCTORS = _child(MMENGINE_RUNNER_CONSTRUCTORS, 'engine')
LOOPS = _child(MMENGINE_LOOPS, 'engine')
HOOKS = _child(MMENGINE_HOOKS, 'engine')
STRATEGIES = _child(MMENGINE_STRATEGIES, 'engine')
MODEL_WRAPPERS = _child(MMENGINE_MODEL_WRAPPERS, 'engine')
OPTIMIZERS = _child(MMENGINE_OPTIMIZERS, 'engine')
OPTIM_WRAPPERS = _child(MMENGINE_OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
PARAM_SCHEDULERS = _child(MMENGINE_PARAM_SCHEDULERS, 'engine')
EVALUATOR = _child(MMENGINE_EVALUATOR, 'engine')
METRICS = _child(MMENGINE_METRICS, 'engine')
LOG_PROCESSORS = _child(MMENGINE_LOG_PROCESSORS, 'engine')
VISUALIZERS = _child(MMENGINE_VISUALIZERS, 'engine')
VISBACKENDS = _child(MMENGINE_VISBACKENDS, 'engine')
INFERENCERS = _child(MMENGINE_INFERENCERS, 'engine')
FUNCTIONS = _child(MMENGINE_FUNCTIONS, 'engine')
