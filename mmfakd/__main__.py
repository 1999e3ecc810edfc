# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""``python -m mmfakd``, the same as the command ``mmfakd``."""

from mmfakd.cli import main

if __name__ == '__main__':
    main()
