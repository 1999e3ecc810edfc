# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a newcomer is asked for: what is run and timed is what the pages say."""

import cv2
import follow_tutorial
import numpy as np
import pytest


def test_first_page():
    commands = [command for command, _ in follow_tutorial.steps('get_started.md')]
    assert commands[0] == "pip install '.[stock]'"
    assert [command.split()[1] for command in commands if command[:6] == 'mmfakd'] == [
        *['env', 'train', 'train', 'train', 'compare', 'export']
    ]
    assert commands[-1] == 'use_student.py'


def test_small_images():
    asked = [*follow_tutorial.steps('image_folder.md', 'Small images')]
    files = {name: text for name, text in asked if text}
    assert [*files] == ['small_student.py', 'small_teacher.py', 'classify_small.py']
    commands = [command for command, text in asked if not text]
    assert [command.split()[1] for command in commands] == [
        *['train', 'pair', 'check', 'train', 'compare', 'export']
    ]
    # What is changed is there.
    for change in follow_tutorial.CHANGES:
        assert sum(change in text for text in files.values()) == 1


def test_images(tmp_path):
    images = np.arange(4 * 32 * 32 * 3, dtype=np.uint8).reshape(4, 32, 32, 3)
    for name in ('train_0', 'test'):
        np.savez(tmp_path / f'{name}.npz', images=images, labels=np.array([1, 0, 1, 3]))
    follow_tutorial.make_images(tmp_path, tmp_path / 'flowers')
    files = sorted((tmp_path / 'flowers/train').rglob('*.png'))
    named = [f'{file.parent.name}/{file.name}' for file in files]
    assert named == ['class_0/0.png', 'class_1/0.png', 'class_1/1.png', 'class_3/0.png']
    read = cv2.imread(str(tmp_path / 'flowers/val/class_1/1.png'))
    assert np.array_equal(read[..., ::-1], images[2])


def test_a_command_that_fails_ends_it(tmp_path, capsys):
    follow_tutorial.run('echo done', tmp_path, '/usr/bin:/bin')
    assert capsys.readouterr().out.endswith('echo done\n')
    with pytest.raises(SystemExit, match='no such step'):
        follow_tutorial.run('echo no such step; exit 3', tmp_path, '/usr/bin:/bin')
