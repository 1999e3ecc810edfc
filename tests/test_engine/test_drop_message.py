# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import logging

import pytest
from mmengine.logging import MMLogger, print_log

from mmfakd.engine.drop_message import drop_message


def test_only_the_message_and_only_within(capfd):
    logger = MMLogger.get_instance('drop message', log_level='INFO')
    with pytest.raises(KeyError), drop_message('is lost'):
        for text in ('It is lost', 'Something else', 'It is lost'):
            print_log(text, 'current', logging.WARNING)
        raise KeyError
    told = ''.join(capfd.readouterr())
    assert 'else' in told and 'is lost' not in told
    # From here on all is as before, also behind an error.
    assert not logger.filters
    print_log('It is lost', 'current')
    assert ''.join(capfd.readouterr()).count('lost') == 1
