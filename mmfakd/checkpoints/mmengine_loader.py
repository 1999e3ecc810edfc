# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""MMEngine's loaders replaced by the restricted one.

This module is imported with mmfakd, before torch and MMEngine may be.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib import import_module
from tempfile import NamedTemporaryFile
from typing import Any


def load_from_mmfakd(source: str, map_location: Any = None, **_: Any) -> dict:
    """Load a checkpoint in place of a loader of MMEngine.

    Args:
        source (str): As for :func:`~mmfakd.checkpoints.fetch.fetch_checkpoint`.
        map_location (Any): As in :func:`torch.load`. Defaults to None.
        **_: Where MMEngine keeps downloads, and by which client they come.

    Returns:
        dict: The checkpoint.
    """
    fetch = import_module('mmfakd.checkpoints.fetch')
    return fetch.fetch_checkpoint(source, map_location=map_location)


def load_without_fallback(
    file: Any, map_location: Any = None, weights_only: bool | None = None
) -> Any:
    """Load a file in place of onedl-mmengine's own ``torch.load``.

    That one loads without any restriction what the restricted way refuses.

    Args:
        file (str | os.PathLike | BinaryIO): A path, or an open file.
        map_location (Any): As in :func:`torch.load`. Defaults to None.
        weights_only (bool, optional): False where the caller trusts the file.

    Returns:
        Any: The checkpoint.
    """
    if weights_only is False:
        torch: Any = import_module('torch')
        return torch.load(file, map_location=map_location, weights_only=False)
    compat = import_module('mmfakd.compat')
    if not hasattr(file, 'read'):
        return compat.load_checkpoint_file(file, map_location)
    with NamedTemporaryFile(suffix='.pth') as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        return compat.load_checkpoint_file(copy.name, map_location)


def replace_mmengine_loaders() -> None:
    """Let everything that MMEngine loads go through the restricted loader.

    MMEngine 0.10 unpickles downloads without any restriction, and before torch 2.6
    local files, too; onedl-mmengine does it with whatever the restricted way refuses.
    Also, it knows no other prefix than ``module.``, which data parallelism leaves, of
    the names of weights, and no other place of weights in a checkpoint than
    ``state_dict``. Calling this again changes nothing.
    """
    checkpoint: Any = import_module('mmengine.runner.checkpoint')
    loader = checkpoint.CheckpointLoader
    # Somebody may have registered another one before mmfakd was imported.
    schemes = loader._schemes.items()
    own = [scheme for scheme, load in schemes if load.__module__ == checkpoint.__name__]
    # Their functions are called by other code, too.
    for scheme in own:
        setattr(checkpoint, loader._schemes[scheme].__name__, load_from_mmfakd)
    loader.register_scheme(own, load_from_mmfakd, force=True)
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = load_without_fallback
    original = checkpoint.load_state_dict
    if hasattr(original, 'mmfakd'):
        return

    def load_state_dict(
        module: Any, state_dict: Any, strict: bool = False, logger: Any = None
    ) -> None:
        """Load weights, whatever wrapped their model; see mmengine.runner."""
        names = import_module('mmfakd.checkpoints.state_dict')
        found = names.weights_in(state_dict)
        parts = any(isinstance(value, Mapping) for value in state_dict.values())
        # Beside weights a dict is what some module keeps, its `_extra_state`.
        if found is not state_dict or (parts and not names.tensor_shapes(found)):
            # Other libraries have them under `model` and other keys.
            state_dict = names.find_state_dict(state_dict, 'The checkpoint')
        plain = names.without_wrappers(state_dict)
        # A model that is wrapped itself has such names, too.
        if plain.keys() != state_dict.keys():
            own = module.state_dict().keys()
            if len(own & plain.keys()) > len(own & state_dict.keys()):
                state_dict = plain
        # A distillation's checkpoint, or that of one in another, for the student alone.
        inner, own = state_dict, module.state_dict().keys()
        while inner and not own & inner.keys():
            student = import_module('mmfakd.checkpoints.student')
            inner = student.student_state_dict(inner)
        state_dict = inner or state_dict
        # MMEngine prints those that the model does not have.
        shown = names.with_printable_names(state_dict, module.state_dict().keys())
        original(module, shown, strict, logger)

    load_state_dict.mmfakd = True  # type: ignore[attr-defined]
    checkpoint.load_state_dict = load_state_dict
