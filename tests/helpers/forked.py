# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Processes that need not import: forked from one that has imported once.

A new interpreter spends seconds of imports before it does anything. What these
processes run, they run as it would: with arguments, environment, folder and streams of
their own. Tests of imports, of shell scripts and of torchrun need real ones.
"""

import multiprocessing
import os
import runpy
import subprocess
import tempfile
from multiprocessing import forkserver
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name('forked_program.py')
_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(
    [
        *('mmfakd.cli', 'mmfakd.models', 'mmfakd.datasets', 'mmfakd.engine'),
        *('mmengine.runner', 'mmpretrain.apis', 'mmdet.models', 'mmdet.apis'),
        'matplotlib.pyplot',
    ]
)


class Forked:
    """A process with the manners of `subprocess.Popen`.

    Args:
        *words: What would follow `python`.
        cwd: Its folder.
        env: Its environment.
        stdout: The file for what it says, which is emptied first.
        stderr: The file for its complaints, None for the same.
        start_new_session: Whether signals to this process group leave it alone.
    """

    def __init__(self, *words, cwd, env, stdout, stderr=None, start_new_session=False):
        self._start_server()
        self.args = [str(word) for word in words]
        streams = [str(stdout), str(stderr or stdout)]
        for file in streams:
            Path(file).write_text('')
        request = (self.args, str(cwd), dict(env), *streams, start_new_session)
        self._process = _CONTEXT.Process(
            target=runpy.run_path,
            args=(str(PROGRAM), {'request': request}, '__main__'),
        )
        self._process.start()
        self.pid = self._process.pid
        self.kill, self.terminate = self._process.kill, self._process.terminate

    @staticmethod
    def _start_server():
        """It is started in the repository, wherever the test is."""
        before = os.getcwd()
        os.chdir(REPOSITORY)
        try:
            forkserver.ensure_running()
        finally:
            os.chdir(before)

    @property
    def returncode(self):
        """Its exit status, None as long as it runs."""
        return self._process.exitcode

    def poll(self):
        """Its exit status, None as long as it runs."""
        return self.returncode

    def wait(self, timeout=None):
        """Wait for its end and return its exit status."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def run(*words, cwd, env=None):
    """Run `python *words` to its end.

    Returns:
        subprocess.CompletedProcess: As `subprocess.run` returns it, with texts.
    """
    env = {**os.environ, 'PYTHONPATH': str(REPOSITORY), **(env or {})}
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name, kind) for kind in ('stdout', 'stderr')]
        process = Forked(*words, cwd=cwd, env=env, stdout=files[0], stderr=files[1])
        status = process.wait()
        said = [file.read_text() for file in files]
    return subprocess.CompletedProcess(process.args, status, *said)
