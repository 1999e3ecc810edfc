# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The two lines of releases that have OpenMMLab's libraries under the same names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .requirement import Requirement


class Family(NamedTuple):
    """Distributions that are made to work together.

    Args:
        name (str): Its name, which is that of the extra of mmfakd that brings it, too.
        title (str): What it is, in a few words.
        requirements (tuple[Requirement, ...]): Its libraries.
        others (tuple[str, ...]): Distributions of the same modules: flavours of mmcv.
        needs_pkg_resources (bool): Whether its MMEngine imports ``pkg_resources``.
    """

    name: str
    title: str
    requirements: tuple[Requirement, ...]
    others: tuple[str, ...] = ()
    needs_pkg_resources: bool = False

    def installed(self, versions: Mapping[str, str]) -> list[str]:
        """List the distributions of this family that are installed.

        Args:
            versions (Mapping[str, str]): Distributions and their versions.

        Returns:
            list[str]: Their names.
        """
        names = (*(library.name for library in self.requirements), *self.others)
        return [name for name in names if name in versions]

    def to_install(self, modules: frozenset[str] = frozenset()) -> str:
        """Say how pip brings this family into an environment that has none.

        Args:
            modules (frozenset[str]): Modules that are wanted beside those that mmfakd
                needs.

        Returns:
            str: A command.
        """
        return pip_install(
            *(
                installable(library)
                for library in self.requirements
                if library.required or library.imported in {*modules, 'mmpretrain'}
            ),
            *(['setuptools<82'] if self.needs_pkg_resources else []),
        )


def installable(requirement: Requirement) -> str:
    """Say what pip is asked for, to have a library.

    Args:
        requirement (Requirement): The library.

    Returns:
        str: A name with its bounds. For mmcv its flavour without compiled operators:
        classification needs none, and it is the one that installs everywhere.
    """
    text = str(requirement)
    return text.replace('mmcv', 'mmcv-lite') if requirement.name == 'mmcv' else text


def pip_install(*wanted: str) -> str:
    """Write a command of pip.

    Args:
        *wanted (str): Names with their bounds.

    Returns:
        str: The command, in backticks.
    """
    quoted = (f'"{one}"' if set(one) & set('<>=') else one for one in wanted)
    return f'`pip install {" ".join(quoted)}`'
