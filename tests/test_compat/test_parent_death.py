# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Nobody outlives its parent who asked for that."""

import subprocess
import sys

import pytest

from tests.helpers.process_runs import alive, wait_for


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux does this')
def test_a_process_ends_with_its_parent():
    child = (
        'import os, signal, time; '
        'from mmfakd.compat.parent_death import end_with_parent; '
        'end_with_parent(signal.SIGTERM); '
        'print(os.getpid(), flush=True); time.sleep(60)'
    )
    code = 'import subprocess, sys; subprocess.run([sys.executable, "-c", sys.argv[1]])'
    words = [sys.executable, '-c', code, child]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive({pid}))
