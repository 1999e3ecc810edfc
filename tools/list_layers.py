# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd layers`, as a script."""

import sys

from mmfakd.cli import main

if __name__ == '__main__':
    main(['layers', *sys.argv[1:]])
