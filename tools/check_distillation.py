# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""`mmfakd check`, as a script."""

from mmfakd.cli import front

if __name__ == '__main__':
    front('check')
