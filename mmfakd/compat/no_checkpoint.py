# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The error of whoever is given a file of something else for weights."""


class NoCheckpoint(TypeError, ValueError):
    """A file holds no dict, and so no weights by their names.

    A wrong value to who asked for weights, and a wrong type to PyTorch, whose error
    that is elsewhere.
    """
