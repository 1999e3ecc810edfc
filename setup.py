# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Builds the package; what is static stands in ``setup.cfg``.

The OpenMMLab tools (``mim``, ``mmfakd::`` config inheritance) look for configs, scripts
and the model index in a folder ``.mim`` inside the installed package, and mmfakd for
published weights. The repository keeps them at its top, so the build puts them there.

PyPI shows the README away from its files, so the build makes its links absolute. The
address of the repository is read from ``CITATION.cff``, ``repository-code``, and from
nowhere else.
"""

import os
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PAPER = 'https://arxiv.org/abs/2403.05894'
MIM_CONTENT = ('configs', 'tools', 'weights', 'model-index.yml')
# They need the checkout around them.
NOT_IN_WHEEL = ('install.sh', 'quickstart.sh', 'run_tests.sh')

WITHOUT_REPOSITORY = 'Files named here are in the source archive of this release.'
# Code is passed over; the text of a link may be an image.
CODE = r'^(?P<fence>```+|~~~+).*?^(?P=fence)|`[^`\n]+`'
TEXT = r'(?P<text>(?:!\[[^\[\]]*\]\([^()\s]+\)|[^\[\]])*)'
LINK = rf'(?P<image>!?)\[{TEXT}\]\((?P<target>[^()\s]+)\)'
LINKS = re.compile(f'{CODE}|{LINK}', re.MULTILINE | re.DOTALL)


class BuildPyWithMim(build_py):
    """``build_py`` that also fills ``mmfakd/.mim``.

    Wheels and normal installs get copies. An editable install gets links inside the
    source tree, which git ignores, so that an edited config counts at once.
    """

    def run(self):
        """Builds the modules, then ``.mim``."""
        super().run()
        base = ROOT if self.editable_mode else Path(self.build_lib)
        if not self.editable_mode:
            shutil.copy2(ROOT / 'mmfakd_on_demand.pth', base)
        target = base / 'mmfakd' / '.mim'
        if target.is_symlink():
            target.unlink()
        # Left from an earlier build, it could hold files that exist no more.
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in MIM_CONTENT:
            source = ROOT / name
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


def find_repository():
    """Reads the address of the repository; '' where none is known yet."""
    citation = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
    found = re.search(r"""^repository-code: *['"]?([^'"\s]+)""", citation, re.MULTILINE)
    return found[1].rstrip('/') if found else ''


def find_tag():
    """Reads the version of this release; its tag has a `v` before it."""
    text = (ROOT / 'mmfakd' / 'version.py').read_text(encoding='utf-8')
    [version] = re.findall(r"^__version__ = '(.+)'", text, re.MULTILINE)
    return f'v{version}'


def with_absolute_links(text, repository, tag):
    """Rewrites what a README links to within its repository.

    Args:
        text (str): The README, in Markdown.
        repository (str): Address of the repository. Without one a link becomes its
            text, and an image its caption and path: better than links that are dead.
        tag (str): The tag of this release.

    Returns:
        str: The text, in which every link is absolute.
    """

    def rewrite(link):
        target = link['target']
        if target is None or re.match(r'[a-z][a-z\d+.-]*:|//', target):
            return link[0]
        caption = LINKS.sub(rewrite, link['text'])
        path = f'README.md{target}' if target[0] == '#' else target.removeprefix('./')
        if repository:
            kind = 'raw' if link['image'] else 'blob'
            return f'{link["image"]}[{caption}]({repository}/{kind}/{tag}/{path})'
        return f'{caption}: `{path}`' if link['image'] else caption

    text = LINKS.sub(rewrite, text)
    return text if repository else f'{text}\n{WITHOUT_REPOSITORY}\n'


def addresses(repository, tag):
    """Lists the links that PyPI shows beside the text."""
    links = {'Paper': PAPER}
    if repository:
        links['Source'] = repository
        links['Documentation'] = f'{repository}/tree/{tag}/docs/en'
        links['Changelog'] = f'{repository}/blob/{tag}/CHANGELOG.md'
        links['Issues'] = f'{repository}/issues'
    return links


repository, tag = find_repository(), find_tag()
readme = (ROOT / 'README.md').read_text(encoding='utf-8')
setup(
    cmdclass={'build_py': BuildPyWithMim},
    long_description=with_absolute_links(readme, repository, tag),
    long_description_content_type='text/markdown',
    # `mim list` shows the home page; the method's own page stands in for one.
    url=repository or PAPER,
    project_urls=addresses(repository, tag),
)
