# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The steps of an installation."""

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Optional

from .common import ROOT, InstallError, release, say
from .environment import Environment
from .full_mmcv import FullMmcv

REQUIREMENTS = ROOT / 'requirements'
# The first and last Python of each set of versions. A set has its constraints in
# requirements/constraints-torch*.txt, the newest has none.
TORCH_SETS = {
    '2.11': ((3, 10), (3, 12)),
    '2.1': ((3, 9), (3, 11)),
    'newest': ((3, 10), (3, 13)),
}
# Files in requirements/: what mmcv without operators needs, what the full one needs.
FAMILIES = {
    'stock': {
        'lite': ('runtime', 'stock', 'stock-lite'),
        'full': ('runtime', 'stock', 'mminstall', 'stock-det', 'stock-seg'),
        'mmcv': ('mmcv', '2.1.0'),
    },
    'onedl': {
        'lite': ('runtime', 'onedl'),
        'full': ('runtime', 'onedl', 'onedl-det', 'onedl-seg'),
        'mmcv': ('onedl-mmcv', '2.3.6'),
    },
}
# Files in requirements/, too: what is installed if it is asked for.
EXTRAS = ('tests', 'lint', 'docs')


class Installer:
    """Brings one environment to what was asked for.

    Args:
        environment (Environment): Where to install. If it has the maintained family of
            the OpenMMLab libraries, that stays.
        args (argparse.Namespace): The options of ``tools/install.sh``.
    """

    def __init__(self, environment: Environment, args: argparse.Namespace) -> None:
        self.environment = environment
        self.note_file = environment.prefix / 'mmfakd-install.json'
        try:
            self.note: dict[str, Any] = json.loads(self.note_file.read_text())
        except (OSError, ValueError):  # none, or cut short
            self.note = {}
        dists = environment.dists
        self.family = 'onedl' if 'onedl-mmengine' in dists else 'stock'
        self.mmcv = FullMmcv(environment, *FAMILIES[self.family]['mmcv'])
        self.full_is_there = self.mmcv.name in dists and (
            self.family == 'stock' or bool(self.note.get('operators'))
        )
        # Lite is not where the full one already serves. Both together serve nobody.
        served = self.full_is_there and 'mmcv-lite' not in dists
        flavour = args.flavour
        self.lite = flavour == 'force-lite' or (flavour == 'lite' and not served)
        # What an earlier call added stays in order, too.
        kept = {*self.note.get('extras', ())} & {*EXTRAS}
        self.extras = sorted({*args.extras, *kept})
        # torch below 2.3 needs numpy 1, which divides the two tested sets as well.
        old = release(dists.get('torch', '9')) < (2, 3) or environment.python < (3, 10)
        default = self.note.get('torch_set') or ('2.1' if old else '2.11')
        self.torch_set: str = args.torch or default

    def state(self, operators: Optional[str]) -> dict[str, Any]:
        """Describe an installation: what was asked for, and what decides and is it."""
        digest = hashlib.sha256(str(ROOT).encode())
        names = ('setup.cfg', 'setup.py', 'pyproject.toml', 'mmfakd/version.py')
        for file in (*sorted(REQUIREMENTS.glob('*.txt')), *map(ROOT.joinpath, names)):
            digest.update(file.read_bytes())
        installed = sorted(p.name for p in self.environment.site.glob('*.dist-info'))
        digest.update('\n'.join(installed).encode())
        return {
            'fingerprint': digest.hexdigest(),
            'extras': self.extras,
            'lite': self.lite,
            'torch_set': self.torch_set,
            'operators': operators,
        }

    def is_complete(self) -> bool:
        """Tell whether the last installation still stands and has what is asked."""
        operators = self.note.get('operators')
        cuda_asked = os.environ.get('FORCE_CUDA') == '1' and not self.lite
        return (
            self.note == self.state(operators)
            and not (cuda_asked and operators == 'cpu')
            and (ROOT / 'mmfakd' / '.mim' / 'model-index.yml').exists()
        )

    def run(self) -> None:
        """Do what is left to do."""
        environment = self.environment
        if self.is_complete():
            return
        self.note_file.unlink(missing_ok=True)
        if environment.own:
            environment.remove_fragments()
        # Both own the folder mmcv: where they met, neither is whole any more. The other
        # way round, lite goes when the full one is at hand, which may take a while.
        met = self.full_is_there and 'mmcv-lite' in environment.dists
        if met or (self.lite and self.full_is_there):
            environment.remove(self.mmcv.name, *(['mmcv-lite'] if met else []))
        fresh = 'torch and the OpenMMLab libraries (about 3 GB to load)'
        there = 'torch' in environment.dists
        say(f'installing {"what is missing" if there else fresh}')
        self.install()
        say('importing everything once')
        self.verify('torch', 'torchvision', 'cv2', 'mmengine')
        operators = None if self.lite else self.mmcv.install(self.note.get('operators'))
        others = () if self.lite else ('mmdet.apis', 'mmseg')
        ours = ('mmfakd.engine.hooks', 'mmrazor')
        self.verify('mmcv', *ours, 'mmpretrain.apis', *others)
        self.note_file.write_text(json.dumps(self.state(operators), indent=2) + '\n')
        flavour = f'operators: {operators}' if operators else 'without operators'
        torch = environment.dists['torch']
        say(f'ready: torch {torch}, mmcv {flavour}, in {environment.prefix}')

    def install(self, dry_run: bool = False) -> None:
        """Let uv install everything but the full mmcv, in one resolution.

        In an environment that is not ours, installed versions take the place of the
        tested ones, and uv has no solution where one of them would have to change.

        Args:
            dry_run (bool): Whether to ask for a solution only. Defaults to False.
        """
        package = ('--reinstall-package', 'mmfakd', '--editable', ROOT)
        kept = {} if self.environment.own else self.environment.dists
        pins = [f'{k}=={v}' for k, v in kept.items() if k != 'mmfakd']
        tested = REQUIREMENTS / f'constraints-torch{self.torch_set}.txt'
        if tested.exists():
            lines = tested.read_text().splitlines()
            pins += [line for line in lines if line.split('==')[0] not in kept]
        if release(kept.get('torch', '9')) < (2, 3):
            pins.append('numpy<2')
        files = (*FAMILIES[self.family]['lite' if self.lite else 'full'], *self.extras)
        with tempfile.TemporaryDirectory() as folder:
            constraints, built = Path(folder, 'pins.txt'), Path(folder, 'built.txt')
            constraints.write_text('\n'.join(pins))
            built.write_text(self.mmcv.name)
            apart = not self.lite and self.mmcv.name not in kept
            # Those of the variable would give way to those of the command line.
            users = self.environment.uv.environ.get('UV_CONSTRAINT', '').split()
            self.environment.pip(
                'install',
                *(f'--constraints={file}' for file in (constraints, *users)),
                *(('--excludes', built) if apart else ()),
                *(f'-r{REQUIREMENTS / name}.txt' for name in files),
                *(('--dry-run',) if dry_run else package),
                *(('pip',) if self.environment.own else ()),
                quiet=dry_run,
            )

    def why_unfit(self, torch_set: Optional[str]) -> Optional[str]:
        """Say why an environment that is not ours cannot be used, None where it can."""
        torch = self.environment.dists.get('torch')
        if torch is None:
            return 'it has no torch'
        if torch_set and not f'{torch}.'.startswith(f'{torch_set}.'):
            return f'it has torch {torch}, not {torch_set}'
        try:
            self.install(dry_run=True)
        except InstallError as error:
            return str(error)
        return None

    def verify(self, *modules: str) -> None:
        """Import modules.

        opencv-python needs display libraries that servers often lack; its headless form
        goes over it there.

        Args:
            *modules (str): Their names.

        Raises:
            InstallError: Where one cannot be imported.
        """
        environment = self.environment
        failure = environment.first_failing_import(*modules)
        if failure and failure[0] == 'cv2' and 'open shared object' in failure[1]:
            say('no display libraries here: taking OpenCV without them')
            headless = f'opencv-python-headless=={environment.dists["opencv-python"]}'
            environment.pip('install', '--no-deps', '--reinstall', headless)
            failure = environment.first_failing_import(*modules)
        if failure:
            raise InstallError(
                '{} cannot be imported:\n{}\nIf the environment is damaged, remove '
                '{} and run this again.'.format(*failure, environment.prefix)
            )
