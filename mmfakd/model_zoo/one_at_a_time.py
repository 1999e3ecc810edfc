# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What may be built while something of the process is replaced."""

from __future__ import annotations

import threading

# Whoever replaces something in all threads, and puts it back, holds it: of two side by
# side the second would put back what the first has replaced.
ONE_AT_A_TIME = threading.RLock()
