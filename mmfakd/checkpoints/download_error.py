# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What is raised where weights do not come."""

from __future__ import annotations


class DownloadError(OSError, RuntimeError):
    """A download failed, is no checkpoint, or does not have the hash in its name.

    A RuntimeError as MMEngine's and torch's own, and an OSError as all that the user
    or the network can mend.
    """
