# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whether what trains a student trains the connectors, too."""

from __future__ import annotations

from torch import Tensor, cuda, nn

from mmfakd.ops.compiling import is_compiling

# Steps of the student after which connectors have had their chance: mixed precision
# leaves out single steps of one optimizer.
_STEPS = 2
# Calls after which nothing is looked at any more: nobody trains, or very rarely.
_MOST_CALLS = 256
_MOST_PARAMETERS = 16


class Moves:
    """Compares student and connectors with what they were, until it is known.

    Versions of parameters tell of most optimizers without waiting for a device. Fused
    ones do not raise them, so that some values are compared, too.
    """

    def __init__(self) -> None:
        self.known = False
        self._calls = self._steps = 0
        self._student: tuple | None = None
        self._connectors: tuple = ()

    def left_out(self, student: nn.Module, connectors: nn.Module) -> bool:
        """Look at both, once a call of the loss.

        Args:
            student (nn.Module): The student.
            connectors (nn.Module): The module that holds the connectors.

        Returns:
            bool: Whether it is now known that the student learns without them.
        """
        if self.known or is_compiling() or _is_captured():
            return False
        if self._student is None:
            self._student, self._connectors = _state(student), _state(connectors)
            # Without weights that learn there is nothing to look at.
            self.known = not self._connectors[1]
            return False
        if self._have_moved(connectors):
            self.known = True
            return False
        before, self._student = self._student, _state(student)
        self._steps += self._student != before
        self._calls += 1
        left_out = self._steps >= _STEPS
        self.known = left_out or self._calls >= _MOST_CALLS
        return left_out

    def _have_moved(self, connectors: nn.Module) -> bool:
        # The versions first, for which no device is waited for.
        if _version(connectors) != self._connectors[0]:
            return True
        return _state(connectors) != self._connectors


def _is_captured() -> bool:
    """Whether a CUDA graph is recorded, which forbids to read values."""
    return cuda.is_available() and cuda.is_current_stream_capturing()


def _learning(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def _version(model: nn.Module) -> int:
    """How often weights have been changed in place."""
    return sum(p._version for p in _learning(model))


def _state(model: nn.Module) -> tuple[int, list]:
    """That, and a few values of some weights."""
    # Of sharded ones the part that lies here, which may be empty.
    own = [getattr(p, '_local_tensor', p).detach() for p in _learning(model)]
    own = [p for p in own if p.numel()]
    step = -(-len(own) // _MOST_PARAMETERS) or 1
    ends = [p[(i,) * p.dim()].item() for p in own[::step] for i in (0, -1)]
    return _version(model), ends
