# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Finished runs and trained models: tables, curves, pictures, benchmarks."""
