# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd plot`, as a script."""

import sys

from mmfakd.cli import main

if __name__ == '__main__':
    main(['plot', *sys.argv[1:]])
