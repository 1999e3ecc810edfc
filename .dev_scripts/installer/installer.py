# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The steps of an installation."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from .common import REQUIREMENTS, ROOT, InstallError, say
from .environment import NOTE, Environment
from .full_mmcv import MMCV, install_full_mmcv, remove_mmcv
from .versions import TORCH_SETS, parse_requirement, read_requirements, release


class Installer:
    """Brings one environment to what was asked for.

    Args:
        environment (Environment): Where to install.
        flavour (str): ``'lite'``, ``'full'`` or ``'force-lite'``.
        extras (Sequence[str]): Further requirements files by name, such as ``'tests'``.
        torch_set (str, optional): A key of ``TORCH_SETS``; None keeps the torch that is
            there, else takes the newest set for this Python.
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
        self.extras = sorted({*extras, *kept, *([] if self.lite else ['det', 'seg'])})
        self.torch_set = torch_set

    def choose_lite(self, flavour: str) -> bool:
        """Decide on mmcv-lite: not where the full one already serves.

        Args:
            flavour (str): What was asked for.

        Returns:
            bool: Whether mmcv-lite is to be there.
        """
        dists = self.environment.dists
        # Both together serve nobody.
        served = 'mmcv' in dists and 'mmcv-lite' not in dists
        return flavour == 'force-lite' or (flavour == 'lite' and not served)

    def requirement_files(self) -> list[str]:
        """Name the files that count.

        Returns:
            list[str]: Names in ``requirements/``.
        """
        return ['runtime.txt', *(f'{extra}.txt' for extra in self.extras)]

    def digest(self) -> str:
        """Sum up everything that decides what an installation contains.

        Returns:
            str: A fingerprint.
        """
        digest = hashlib.sha256()
        names = ('setup.cfg', 'setup.py', 'mmfakd/version.py')
        code = Path(__file__).parent.glob('*.py')
        texts = [*REQUIREMENTS.glob('*.txt'), *code, *(ROOT / name for name in names)]
        for file in sorted(texts):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def tracked_versions(self) -> dict[str, Optional[str]]:
        """Look up the installed versions of all that the requirements name.

        Returns:
            dict[str, str | None]: By the names of the packages.
        """
        named = read_requirements(*self.requirement_files())
        names = sorted({*named, 'mmcv', 'mmcv-lite', 'mmfakd'})
        return {name: self.environment.dists.get(name) for name in names}

    def state(self, torch_set: Optional[str], operators: Optional[str]) -> dict:
        """Describe what is installed, for the note.

        Args:
            torch_set (str, optional): The set of versions that was installed.
            operators (str, optional): For which devices mmcv's operators are.

        Returns:
            dict: The note.
        """
        return dict(
            digest=self.digest(),
            root=str(ROOT),
            extras=self.extras,
            lite=self.lite,
            operators=operators,
            torch_set=torch_set,
            versions=self.tracked_versions(),
        )

    def is_complete(self) -> bool:
        """Tell whether the last installation still stands and has what is asked.

        Returns:
            bool: Whether it does.
        """
        # `self.extras` has those of the note, and what is asked for now.
        torch_set, operators = self.note.get('torch_set'), self.note.get('operators')
        cuda_asked = os.environ.get('FORCE_CUDA') == '1' and not self.lite
        return (
            dict(self.note, operators=operators) == self.state(torch_set, operators)
            and self.torch_set in (None, torch_set)
            and not (cuda_asked and operators == 'cpu')
            and self.package_is_linked()
        )

    def run(self) -> None:
        """Do what is left to do."""
        environment = self.environment
        if self.is_complete():
            return
        (environment.prefix / NOTE).unlink(missing_ok=True)
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
        others = () if self.lite else ('mmdet', 'mmseg')
        self.verify(constraints, 'mmcv', 'mmpretrain', 'mmfakd', 'mmrazor', *others)
        environment.refresh()
        environment.write_note(self.state(torch_set, operators))
        flavour = 'mmcv-lite' if self.lite else f'mmcv (operators: {operators})'
        torch = environment.dists['torch']
        say(f'ready: torch {torch}, {flavour}, in {environment.prefix}')

    def settle_torch_set(self) -> str:
        """Settle the set of versions to install.

        Returns:
            str: A key of ``TORCH_SETS``.

        Raises:
            InstallError: Where the set asked for does not exist for this Python.
        """
        python = self.environment.python
        installed = release(self.environment.dists.get('torch', ''))
        if self.torch_set:
            chosen = self.torch_set
        elif installed:
            # torch below 2.3 needs numpy 1, which divides the two sets as well.
            chosen = '2.1' if installed < (2, 3) else '2.11'
        else:
            fits = (s for s, pythons in TORCH_SETS.items() if python in pythons)
            chosen = next(fits, '2.11')
        pythons = TORCH_SETS[chosen]
        if self.environment.own and python not in pythons:
            raise InstallError(
                'The versions tested with torch {} are for Python {}.{} to {}.{}, and '
                '{} has Python {}.{}. Remove it, or choose another --torch.'.format(
                    chosen, *pythons[0], *pythons[-1], self.environment.prefix, *python
                )
            )
        return chosen

    def write_constraints(self, torch_set: str) -> Path:
        """Write the constraints for pip.

        In an environment that is not ours, installed versions take the place of the
        tested ones.

        Args:
            torch_set (str): A key of ``TORCH_SETS``.

        Returns:
            Path: The file.
        """
        tested = REQUIREMENTS / f'constraints-torch{torch_set}.txt'
        if self.environment.own:
            return tested
        # mmfakd is never asked of an index, and the flavours of mmcv change places.
        kept = {**self.environment.dists, 'mmcv': MMCV, 'mmcv-lite': MMCV}
        kept.pop('mmfakd', None)
        pins = [
            line
            for line in tested.read_text().splitlines()
            if (parsed := parse_requirement(line)) and parsed[0] not in kept
        ]
        pins += [f'{name}=={version}' for name, version in kept.items()]
        path = self.environment.prefix / 'mmfakd-constraints.txt'
        path.write_text('\n'.join([*pins, '']))
        return path

    def remove_fragments(self) -> None:
        """Remove the traces of installations that were cut short.

        pip writes RECORD last; without it a package only looks installed.
        """
        for folder in self.environment.site.glob('*.dist-info'):
            if not (folder / 'RECORD').exists():
                say(f'{folder.name} is incomplete and will be installed again')
                shutil.rmtree(folder)
        self.environment.refresh()

    def upgrade_pip(self) -> None:
        """Upgrade an old pip, which does not resume a download that breaks off."""
        if release(self.environment.dists.get('pip', '0')) < (25, 1):
            say('upgrading pip')
            self.environment.pip('install', 'pip>=25.1,<27')

    def remove_wrong_mmcv(self) -> None:
        """Uninstall the full mmcv where lite is wanted, and both where they met.

        Both own the folder ``mmcv``: where they met, neither is whole any more. (The
        other way round, lite goes when the full one is at hand, which may take a while:
        see :func:`install_full_mmcv`.)
        """
        there = [n for n in ('mmcv', 'mmcv-lite') if n in self.environment.dists]
        if len(there) == 2 or (self.lite and 'mmcv' in there):
            remove_mmcv(self.environment, there)

    def install_packages(self, constraints: Path) -> None:
        """Install everything that pip finds as wheels, in one resolution.

        Args:
            constraints (Path): The constraints for pip.
        """
        files = [f'--requirement={REQUIREMENTS / n}' for n in self.requirement_files()]
        more = ['wheel', 'mmcv-lite'] if self.lite else ['wheel']
        fresh = 'torch and the OpenMMLab libraries (about 3 GB to load)'
        there = 'torch' in self.environment.dists
        say(f'installing {"what is missing" if there else fresh}')
        self.environment.pip('install', '-c', constraints, *files, *more)
        self.environment.refresh()

    def package_is_linked(self) -> bool:
        """Tell whether this repository is installed as it stands, editable.

        Returns:
            bool: Whether it is.
        """
        source = json.loads(self.environment.source or '{}')
        return (
            source.get('url') == ROOT.as_uri()
            and source.get('dir_info', {}).get('editable', False)
            and (ROOT / 'mmfakd' / '.mim' / 'model-index.yml').exists()
        )

    def install_package(self) -> None:
        """Install the package itself, editable: a changed file counts at once."""
        if self.package_is_linked() and self.note.get('digest') == self.digest():
            return
        say('installing mmfakd itself')
        options = ('--no-deps', '--no-build-isolation', '--editable')
        self.environment.pip('install', *options, ROOT)
        self.environment.refresh()

    def verify(self, constraints: Path, *modules: str) -> None:
        """Import modules.

        opencv-python needs display libraries that servers often lack; its headless form
        goes over it there.

        Args:
            constraints (Path): The constraints for pip.
            *modules (str): Their names.

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
            raise InstallError(
                '{} cannot be imported:\n{}\nIf the environment is damaged, remove '
                '{} and run this again.'.format(*failure, self.environment.prefix)
            )
