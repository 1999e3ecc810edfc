# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Installs mmfakd and what it needs. Call it through ``tools/install.sh``.

uv finds Pythons, makes environments, resolves and installs. What it does not know
stands here: whether to use the active environment, the full mmcv, which is compiled
against the installed torch once and kept, and a note by which the next call knows at
once that nothing is left to do.

Standard library only, because it runs before anything is installed.
"""
