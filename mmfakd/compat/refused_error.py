# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The error of whoever finds what a checkpoint must not hold."""

import pickle


class RefusedError(pickle.UnpicklingError):
    """A checkpoint holds something that is not allowed in it."""
