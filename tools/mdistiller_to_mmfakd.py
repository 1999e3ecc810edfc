# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd convert`, as a script."""

import sys

from mmfakd.cli import main

if __name__ == '__main__':
    main(['convert', *sys.argv[1:]])
