# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The parts of `benchmark.py`: what is measured, how, and how it is shown."""
