# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The steps of an installation."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from .dev_scripts.installer.common import (
    REQUIREMENTS,
    ROOT,
    TORCH_SETS,
    InstallError,
    parse_requirement,
    read_requirements,
    release,
    say,
)
from .dev_scripts.installer.environment import NOTE, Environment
from .dev_scripts.installer.full_mmcv import MMCV, install_full_mmcv, remove_mmcv


class Installer:
    """Brings one environment to what was asked for.

    Args:
        environment: Where to install.
        flavour: ``'lite'``, ``'full'`` or ``'force-lite'``.
        extras: Further requirements files by name, such as ``'tests'``.
        torch_set: A key of ``TORCH_SETS``; None keeps the torch that is there, else
            takes the newest set for this Python.
    """

    def __init__(
        self,
        environment: Environment,
        flavour: str,
        extras: Sequence[str],
        torch_set: Optional[str],
    ) -> None:
        self.environment = environment
        self.note = environment.read_note()
        self.lite = self.choose_lite(flavour)
        # What an earlier call added stays in order, too.
        kept = self.note.get('extras', [])
        det = [] if self.lite else ['det']
        self.extras = sorted({*extras, *kept, *det})
        self.torch_set = torch_set

    def choose_lite(self, flavour: str) -> bool:
        """Whether mmcv-lite is to be there: not where the full one already serves."""
        dists = self.environment.dists
        clash = 'mmcv' in dists and 'mmcv-lite' in dists
        if flavour == 'lite':
            return 'mmcv' not in dists or clash
        return flavour == 'force-lite'

    def requirement_files(self) -> list[str]:
        """The files in ``requirements/`` that count."""
        return ['runtime.txt', *(f'{extra}.txt' for extra in self.extras)]

    def digest(self) -> str:
        """A fingerprint of everything that decides what an installation contains."""
        digest = hashlib.sha256()
        names = ('setup.cfg', 'setup.py', 'mmfakd/version.py')
        code = Path(__file__).parent.glob('*.py')
        texts = [*REQUIREMENTS.glob('*.txt'), *code, *(ROOT / name for name in names)]
        for file in sorted(texts):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def tracked_versions(self) -> dict[str, Optional[str]]:
        """The installed versions of all that the requirements name."""
        names = {*read_requirements(*self.requirement_files()), 'mmcv', 'mmcv-lite'}
        dists = self.environment.dists
        return {name: dists.get(name) for name in sorted({*names, 'mmfakd'})}

    def is_complete(self) -> bool:
        """Whether the last installation still stands and contains what is asked."""
        note = self.note
        cuda_asked = os.environ.get('FORCE_CUDA') == '1' and not self.lite
        return (
            note.get('digest') == self.digest()
            and note.get('root') == str(ROOT)
            and set(self.extras) <= set(note.get('extras', []))
            and note.get('versions') == self.tracked_versions()
            and note.get('lite') == self.lite
            and self.torch_set in (None, note.get('torch_set'))
            and not (cuda_asked and note.get('operators') == 'cpu')
            and self.package_is_linked()
        )

    def run(self) -> None:
        """Does what is left to do."""
        environment = self.environment
        if self.is_complete():
            return
        note = environment.prefix / NOTE
        note.unlink(missing_ok=True)
        torch_set = self.settle_torch_set()
        constraints = self.write_constraints(torch_set)
        if environment.own:
            self.remove_fragments()
            self.upgrade_pip()
        self.remove_wrong_mmcv()
        self.install_packages(constraints)
        say('importing everything once')
        self.verify(constraints, 'torch', 'torchvision', 'cv2', 'mmengine')
        operators = None
        if not self.lite:
            noted = self.note.get('operators')
            operators = install_full_mmcv(environment, constraints, noted)
        self.install_package()
        detection = () if self.lite else ('mmdet',)
        self.verify(constraints, 'mmcv', 'mmpretrain', 'mmfakd', 'mmrazor', *detection)
        environment.refresh()
        environment.write_note(
            dict(
                digest=self.digest(),
                root=str(ROOT),
                extras=self.extras,
                lite=self.lite,
                operators=operators,
                torch_set=torch_set,
                versions=self.tracked_versions(),
            )
        )
        flavour = 'mmcv-lite' if self.lite else f'mmcv (operators: {operators})'
        torch = environment.dists['torch']
        say(f'ready: torch {torch}, {flavour}, in {environment.prefix}')

    def settle_torch_set(self) -> str:
        """The set of versions to install.

        Raises:
            InstallError: Where the set asked for does not exist for this Python.
        """
        environment = self.environment
        installed = release(environment.dists.get('torch', ''))
        if self.torch_set:
            chosen = self.torch_set
        elif installed:
            # torch below 2.3 needs numpy 1, which divides the two sets as well.
            chosen = '2.1' if installed < (2, 3) else '2.11'
        else:
            fits = (
                name
                for name, (low, high) in TORCH_SETS.items()
                if low <= environment.python <= high
            )
            chosen = next(fits, '')
        low, high = TORCH_SETS.get(chosen, TORCH_SETS['2.11'])
        if environment.own and not (chosen and low <= environment.python <= high):
            raise InstallError(
                'The versions tested with torch {} are for Python {}.{} to {}.{}, and '
                '{} has Python {}.{}. Remove it, or choose another --torch.'.format(
                    chosen or '2.11',
                    *low,
                    *high,
                    environment.prefix,
                    *environment.python,
                )
            )
        return chosen

    def write_constraints(self, torch_set: str) -> Path:
        """The constraints for pip.

        In an environment that is not ours, installed versions take the place of the
        tested ones.
        """
        tested = REQUIREMENTS / f'constraints-torch{torch_set}.txt'
        if self.environment.own:
            return tested
        pins = [
            line
            for line in tested.read_text().splitlines()
            if (parsed := parse_requirement(line))
            and parsed[0] not in self.environment.dists
        ]
        pins += [f'{name}=={v}' for name, v in self.environment.dists.items()]
        # mmfakd is never asked of an index, and the flavours of mmcv change places.
        skipped = ('mmfakd', 'mmcv', 'mmcv-lite')
        pins = [pin for pin in pins if pin.split('==')[0] not in skipped]
        path = self.environment.prefix / 'mmfakd-constraints.txt'
        path.write_text('\n'.join([*pins, f'mmcv=={MMCV}', f'mmcv-lite=={MMCV}', '']))
        return path

    def remove_fragments(self) -> None:
        """Removes the traces of installations that were cut short.

        pip writes RECORD last; without it a package only looks installed.
        """
        fragments = [
            folder
            for folder in self.environment.site.glob('*.dist-info')
            if not (folder / 'RECORD').exists()
        ]
        for folder in fragments:
            say(f'{folder.name} is incomplete and will be installed again')
            shutil.rmtree(folder)
        if fragments:
            self.environment.refresh()

    def upgrade_pip(self) -> None:
        """Old pips do not resume a download that breaks off."""
        if release(self.environment.dists.get('pip', '0')) < (25, 1):
            say('upgrading pip')
            self.environment.pip('install', 'pip>=25.1,<27')

    def remove_wrong_mmcv(self) -> None:
        """Uninstalls the full mmcv where lite is wanted, and both where they met.

        Both own the folder ``mmcv``: where they met, neither is whole any more. (The
        other way round, lite goes when the full one is at hand, which may take a while:
        see :func:`install_full_mmcv`.)
        """
        there = [n for n in ('mmcv', 'mmcv-lite') if n in self.environment.dists]
        if len(there) == 2 or (self.lite and 'mmcv' in there):
            remove_mmcv(self.environment, there)

    def install_packages(self, constraints: Path) -> None:
        """Everything that pip finds as wheels, in one resolution."""
        files: list[object] = []
        for name in self.requirement_files():
            files += ['-r', REQUIREMENTS / name]
        more = ['wheel', 'mmcv-lite'] if self.lite else ['wheel']
        if 'torch' not in self.environment.dists:
            say('installing torch and the OpenMMLab libraries (about 3 GB to load)')
        else:
            say('installing what is missing')
        self.environment.pip('install', '-c', constraints, *files, *more)
        self.environment.refresh()

    def package_is_linked(self) -> bool:
        """Whether this repository is installed as it stands, editable."""
        source = json.loads(self.environment.source or '{}')
        return (
            source.get('url') == ROOT.as_uri()
            and source.get('dir_info', {}).get('editable', False)
            and (ROOT / 'mmfakd' / '.mim' / 'model-index.yml').exists()
        )

    def install_package(self) -> None:
        """The package itself, editable: a changed file counts at once."""
        if self.package_is_linked() and self.note.get('digest') == self.digest():
            return
        say('installing mmfakd itself')
        options = ('--no-deps', '--no-build-isolation', '--editable')
        self.environment.pip('install', *options, ROOT)
        self.environment.refresh()

    def verify(self, constraints: Path, *modules: str) -> None:
        """Imports modules.

        opencv-python needs display libraries that servers often lack; its headless form
        goes over it there.

        Raises:
            InstallError: Where one cannot be imported.
        """
        failure = self.environment.first_failing_import(modules)
        if failure and failure[0] == 'cv2' and 'open shared object' in failure[1]:
            say('no display libraries here: taking OpenCV without them')
            options = ('--no-deps', '--force-reinstall', '-c', constraints)
            self.environment.pip('install', *options, 'opencv-python-headless')
            failure = self.environment.first_failing_import(modules)
        if failure:
            name, trace = failure
            raise InstallError(
                f'{name} cannot be imported:\n{trace}\nIf the environment is damaged, '
                f'remove {self.environment.prefix} and run this again.'
            )
