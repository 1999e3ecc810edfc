# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Students that start with parts of their teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import nn

from mmfakd.messages import near_layers

from .state_dict import some


def check_inherited(
    names: str | Sequence[str] | None, student: nn.Module, teacher: nn.Module
) -> list[str]:
    """Check that the student can start with these modules of the teacher.

    Args:
        names (str | Sequence[str], optional): Names of modules that both have.
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.

    Returns:
        list[str]: The names; none for None.

    Raises:
        ValueError: If one of the models lacks a module (near names are listed), a
            module differs in its tensors, or one is named twice or within another.
    """
    names = [names] if isinstance(names, str) else list(names or [])
    for index, name in enumerate(names):
        for role, model in (('student', student), ('teacher', teacher)):
            known = [known for known, _ in model.named_modules() if known]
            if name not in known:
                raise ValueError(
                    f'inherit: the {role} ({type(model).__name__}) has no module '
                    f'{name!r}. Nearest names: {near_layers(str(name), known)}. '
                    'Name modules that student and teacher have in common.'
                )
        for other in names[:index]:
            if f'{name}.'.startswith(f'{other}.') or other.startswith(f'{name}.'):
                raise ValueError(
                    f'inherit: {other!r} and {name!r} share weights; name each module '
                    'once, alone or as a part of another.'
                )
        differing = _differences(
            student.get_submodule(name), teacher.get_submodule(name)
        )
        if differing:
            inside = find_inheritable(student, teacher, name)
            raise ValueError(
                f"inherit: {name!r} of the student cannot start as the teacher's: "
                + some((f'{name}.{text}' for text in differing), separator='; ')
                + '. Leave it out, or set the widths, classes or number of '
                "levels of the student's to the teacher's."
                + (f' Parts that fit: {inside}.' if inside else '')
            )
    return names


def inherit_weights(
    names: Sequence[str], student: nn.Module, teacher: nn.Module
) -> None:
    """Copy parameters and buffers of modules from the teacher to the student.

    Args:
        names (Sequence[str]): As :func:`check_inherited` returns them.
        student (nn.Module): The student, changed in place.
        teacher (nn.Module): The teacher.
    """
    for name in names:
        weights = teacher.get_submodule(name).state_dict()
        student.get_submodule(name).load_state_dict(weights)
    if names:
        listed = ', '.join(names)
        print_log(f"The student starts with the teacher's {listed}.", logger='current')


def find_inheritable(
    student: nn.Module, teacher: nn.Module, within: str = ''
) -> list[str]:
    """Find the largest modules behind the backbone that a student can start with.

    Args:
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.
        within (str): Where to look; ``''`` is the whole model, without ``backbone``
            and ``data_preprocessor``.

    Returns:
        list[str]: Names of modules with weights that are of one class and equal in
        their tensors.
    """
    found = []
    theirs = dict(teacher.get_submodule(within).named_children())
    for name, ours in student.get_submodule(within).named_children():
        path = f'{within}.{name}' if within else name
        if path in ('backbone', 'data_preprocessor') or name not in theirs:
            continue
        if not any(p.numel() for p in ours.parameters()):
            continue
        if type(ours) is type(theirs[name]) and not _differences(ours, theirs[name]):
            found.append(path)
        else:
            found += find_inheritable(student, teacher, path)
    return found


def _differences(student: nn.Module, teacher: nn.Module) -> list[str]:
    """What differs between the tensors of two modules, in words."""
    ours, theirs = (
        {
            key: tuple(value.shape)
            for key, value in module.state_dict().items()
            if isinstance(value, torch.Tensor)
        }
        for module in (student, teacher)
    )
    return [
        f'{key}: the student has {ours.get(key, "none")}, the teacher '
        f'{theirs.get(key, "none")}'
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]
