# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Checkpoint files: fetched, loaded, exported, converted, inherited."""
