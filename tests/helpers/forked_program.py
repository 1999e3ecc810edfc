# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a forked process of `forked.py` runs: what `python *words` would."""

import atexit
import os
import runpy
import sys
import traceback
from pathlib import Path


def redirect(number, file):
    """Let a stream go to a file."""
    target = os.open(file, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, number)
    os.close(target)


def run(words, folder, environ, stdout, stderr, own_session):
    """Run a program with arguments, folder, environment and streams of its own."""
    if own_session:
        os.setsid()
    redirect(1, stdout)
    redirect(2, stderr)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    search = environ.get('PYTHONPATH', '').split(os.pathsep)
    sys.path[:0] = filter(None, search)
    try:
        if words[0] == '-m':
            sys.path.insert(0, folder)
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name='__main__', alter_sys=True)
        elif words[0] == '-c':
            sys.path.insert(0, '')
            sys.argv = ['-c', *words[2:]]
            exec(compile(words[1], '<string>', 'exec'), {'__name__': '__main__'})
        else:
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            sys.argv = words
            runpy.run_path(words[0], run_name='__main__')
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        # A process of multiprocessing leaves without them.
        atexit._run_exitfuncs()


if __name__ == '__main__':
    run(*request)  # noqa: F821  (given by the one who starts it)
