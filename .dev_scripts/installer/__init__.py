# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Installs mmfakd and what it needs. Call it through ``tools/install.sh``.

Standard library only, because it runs before anything is installed. It works in four
steps, each of which looks first whether there is anything to do:

1. the environment: the active one where it fits, else ``.venv`` in the repository;
2. the packages, by pip, with the versions of a constraints file;
3. mmcv in the flavour asked for, see :mod:`installer.full_mmcv`;
4. the package itself, editable.

Then it imports everything once and leaves a note of what it installed, by which the
next call knows at once that nothing is left to do.
"""
