# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd pair`, as a script."""

import sys

from mmfakd.cli import main

if __name__ == '__main__':
    main(['pair', *sys.argv[1:]])
