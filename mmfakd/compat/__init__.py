# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the OpenMMLab libraries need on current torch, numpy and Python.

One module a concern; each shim says which versions it is for and names the
upstream thread. Nothing here imports torch or MMEngine before the versions have
been checked.
"""

import sys
from contextlib import suppress

from .checkpoints import allow_mmengine_checkpoints, load_checkpoint_file
from .config_formatting import remember_formatted_configs
from .config_inheritance import register_config_package
from .config_packages import install_nothing, name_config_packages
from .import_hook import when_imported
from .late_imports import import_libraries_late
from .mmrazor_mmcv import allow_mmrazor_with_newer_mmcv
from .mmrazor_quantization import allow_mmrazor_without_quantization
from .mmrazor_types import allow_mmrazor_types
from .mmrazor_val_loop import score_teachers_as_distilled
from .onedl_messages import silence_absent_onedl
from .versions import check_environment


def apply_shims() -> None:
    """Apply every shim; calling it again changes nothing.

    Those for MMEngine wait until torch or MMEngine is imported.
    """
    # In the order in which an import of mmrazor meets them.
    allow_mmrazor_with_newer_mmcv()
    allow_mmrazor_without_quantization()
    allow_mmrazor_types()
    score_teachers_as_distilled()
    import_libraries_late()
    silence_absent_onedl()
    when_imported('mmengine', _mend_mmengine)
    when_imported('torch', _import_mmengine)


def _mend_mmengine() -> None:
    allow_mmengine_checkpoints()
    register_config_package()
    name_config_packages()
    install_nothing()
    remember_formatted_configs()


def _import_mmengine() -> None:
    """Bring the shims, as ``torch.load`` alone is to read MMEngine's checkpoints."""
    # MMEngine imports torch in the middle of its own import.
    if 'mmengine' not in sys.modules:
        # What is wrong with MMEngine is none of torch's business.
        with suppress(Exception):
            import mmengine  # noqa: F401


__all__ = [
    'allow_mmengine_checkpoints',
    'allow_mmrazor_types',
    'allow_mmrazor_with_newer_mmcv',
    'allow_mmrazor_without_quantization',
    'apply_shims',
    'check_environment',
    'import_libraries_late',
    'install_nothing',
    'load_checkpoint_file',
    'name_config_packages',
    'register_config_package',
    'remember_formatted_configs',
    'score_teachers_as_distilled',
    'silence_absent_onedl',
]
