# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whose progress a model reads."""

from types import SimpleNamespace

from mmengine.logging import MessageHub
from mmengine.runner import BaseLoop

from mmfakd.compat.running_loop import message_hub


class CallsBack(BaseLoop):
    """A loop that does nothing but call."""

    def __init__(self, runner):
        self._runner = runner

    def run(self):
        return message_hub()


def test_the_hub_is_that_of_the_runner_which_trains():
    mine = MessageHub.get_instance('the-one-that-trains')
    later = MessageHub.get_instance('the-one-that-was-built-last')
    assert message_hub() is later
    assert CallsBack(SimpleNamespace(message_hub=mine)).run() is mine


def test_a_runner_of_ones_own_may_have_none():
    current = MessageHub.get_instance('some-hub')
    assert CallsBack(SimpleNamespace()).run() is current
