# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Builds the package; everything static stands in ``setup.cfg``.

The OpenMMLab tools (``mim``, ``mmfakd::`` config inheritance) look for configs, scripts
and the model index in a folder ``.mim`` inside the installed package. The repository
keeps them at its top, so the build puts them there.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MIM_CONTENT = ('configs', 'tools', 'model-index.yml')
# They need the checkout around them.
NOT_IN_WHEEL = ('install.sh', 'quickstart.sh', 'run_tests.sh')


class BuildPyWithMim(build_py):
    """``build_py`` that also fills ``mmfakd/.mim``.

    Wheels and normal installs get copies. An editable install gets links inside the
    source tree, which git ignores, so that an edited config counts at once.
    """

    def run(self):
        """Builds the modules, then ``.mim``."""
        super().run()
        root = Path(__file__).resolve().parent
        base = root if self.editable_mode else Path(self.build_lib)
        target = base / 'mmfakd' / '.mim'
        if target.is_symlink():
            target.unlink()
        # Left from an earlier build, it could hold files that exist no more.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in MIM_CONTENT:
            source = root / name
            if self.editable_mode:
                link = os.path.relpath(source, target)
                (target / name).symlink_to(link, target_is_directory=source.is_dir())
            elif source.is_dir():
                shutil.copytree(
                    source,
                    target / name,
                    ignore=shutil.ignore_patterns(
                        '__pycache__', '*.pyc', *NOT_IN_WHEEL
                    ),
                )
            else:
                shutil.copy2(source, target / name)


setup(cmdclass={'build_py': BuildPyWithMim})
