# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The version of mmfakd, readable without importing anything else."""

__version__ = '0.1.0'
