# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a model does in the middle of a training, without one."""

from itertools import count
from types import SimpleNamespace

from mmengine.logging import MessageHub
from mmengine.runner import BaseLoop

_NUMBERS = count()


def within_loop(call, **progress):
    """Call something as the loop of a runner that has come so far, as `iter=7`."""
    hub = MessageHub(f'within-loop-{next(_NUMBERS)}')
    hub.update_info_dict(progress)
    return _Loop(SimpleNamespace(message_hub=hub), call).run()


class _Loop(BaseLoop):
    def __init__(self, runner, call):
        self._runner, self.call = runner, call

    def run(self):
        return self.call()
