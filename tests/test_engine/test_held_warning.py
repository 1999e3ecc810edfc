# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import logging

import pytest
from mmengine.logging import MMLogger, print_log

from mmfakd.engine.held_warning import HeldWarning


@pytest.mark.parametrize('dropped', [False, True])
def test_is_told_once_or_not_at_all(dropped, capfd):
    MMLogger.get_instance(f'held {dropped}', log_level='INFO')
    held = HeldWarning('is lost')
    held.release()
    held.hold()
    for text in ('It is lost', 'Something else', 'It is lost'):
        print_log(text, 'current', logging.WARNING)
    held_back = ''.join(capfd.readouterr())
    assert 'else' in held_back and 'is lost' not in held_back
    if dropped:
        held.drop()
    held.release()
    assert ''.join(capfd.readouterr()).count('WARNING - It is lost') == (not dropped)
    # From here on all is as before.
    held.release()
    print_log('More is lost', 'current')
    assert ''.join(capfd.readouterr()).count('lost') == 1
