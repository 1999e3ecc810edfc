# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmfakd's registries, each a child of MMEngine's registry of the same name.

``locations`` names the package that MMEngine imports on the first look-up, so
``type='mmfakd.Name'`` builds from any scope without ``custom_imports``.
Registries in which mmfakd has nothing of its own exist for
``default_scope='mmfakd'``: MMEngine warns at every build whose registry has no
child of that scope.

Reference: https://mmengine.readthedocs.io/en/latest/advanced_tutorials/registry.html
"""

from mmengine import registry as root
from mmengine.registry import Registry


def _child(parent: Registry, location: str) -> Registry:
    """Make mmfakd's child of one MMEngine registry, filled from ``location``."""
    return Registry(
        parent.name, scope='mmfakd', parent=parent, locations=[f'mmfakd.{location}']
    )


# Networks, layers, connectors, losses, distillers and algorithms.
MODELS = _child(root.MODELS, 'models')
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS, 'models')
TASK_UTILS = _child(root.TASK_UTILS, 'models')

# Data.
DATASETS = _child(root.DATASETS, 'datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child(root.TRANSFORMS, 'datasets')
# Those of data loaders.
FUNCTIONS = _child(root.FUNCTIONS, 'datasets')

# Everything that runs a model.
RUNNERS = _child(root.RUNNERS, 'engine')
RUNNER_CONSTRUCTORS = _child(root.RUNNER_CONSTRUCTORS, 'engine')
LOOPS = _child(root.LOOPS, 'engine')
HOOKS = _child(root.HOOKS, 'engine')
STRATEGIES = _child(root.STRATEGIES, 'engine')
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS, 'engine')
OPTIMIZERS = _child(root.OPTIMIZERS, 'engine')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS, 'engine')
EVALUATOR = _child(root.EVALUATOR, 'engine')
METRICS = _child(root.METRICS, 'engine')
LOG_PROCESSORS = _child(root.LOG_PROCESSORS, 'engine')
VISUALIZERS = _child(root.VISUALIZERS, 'engine')
VISBACKENDS = _child(root.VISBACKENDS, 'engine')
INFERENCERS = _child(root.INFERENCERS, 'engine')
