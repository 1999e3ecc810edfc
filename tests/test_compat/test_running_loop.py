# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Whose progress a model reads."""

from types import SimpleNamespace

from mmengine.logging import MessageHub
from mmengine.runner import BaseLoop

from mmfakd.compat.running_loop import (
    iterations_done,
    message_hub,
    start_message_hub,
)
from tests.helpers.within_loop import within_loop


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


def test_iterations_are_those_of_a_loop():
    """What the hub of a finished training tells is nobody's progress."""
    MessageHub.get_instance('a-finished-training').update_info('iter', 7)
    assert iterations_done() == 0
    assert within_loop(iterations_done, iter=3) == 3
    assert within_loop(iterations_done) == 0


def test_each_hub_that_is_started_tells_of_a_beginning():
    finished = MessageHub.get_instance('another-finished-training')
    finished.update_info_dict(dict(iter=7, epoch=2, max_epochs=3))
    for _ in range(2):
        start_message_hub('some-steps')
        assert message_hub().runtime_info == dict(iter=0, epoch=0)
        message_hub().update_info('iter', 5)
    assert finished.runtime_info['iter'] == 7
