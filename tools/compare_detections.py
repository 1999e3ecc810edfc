# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd detections`, as a script."""

import sys

from mmfakd.cli import main

if __name__ == '__main__':
    main(['detections', *sys.argv[1:]])
