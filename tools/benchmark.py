# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd benchmark`, as a script."""

import sys

from mmfakd.cli import main

if __name__ == '__main__':
    main(['benchmark', *sys.argv[1:]])
