# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The table of layers."""

import re

import pytest

from mmfakd.cli import main


def rows_of(text):
    """Lines of the table: layer, type, calls, output and map."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('layer '))
    return {
        line.split()[0]: re.split(r' {2,}', line)[1:] for line in lines[start + 1 :]
    }


def test_every_layer_with_its_shapes(capsys):
    main(['layers', 'resnet18_8xb32_in1k', '--input-size', '64x96'])
    text = capsys.readouterr().out
    assert 'ImageClassifier, images of 64x96' in text
    rows = rows_of(text)
    assert rows['backbone.layer1.0.relu'] == ['ReLU', '2', '(N, 64, 16, 24)']
    assert rows['backbone.layer4'] == ['ResLayer', '1', '(N, 512, 2, 3)']
    assert rows['backbone'] == ['ResNet', '1', '[0] (N, 512, 2, 3)']
    assert rows['head.fc'] == ['Linear', '1', '(N, 1000)']
    # All but the data preprocessor and the loss, which a forward pass does not call.
    assert len(rows) == 78


def test_tokens_and_how_they_become_maps(capsys):
    main(['layers', 'deit-tiny-distilled_4xb256_in1k', '--depth', '2'])
    text = capsys.readouterr().out
    assert 'images of 224x224' in text
    rows = rows_of(text)
    assert rows['backbone.patch_embed'][2:] == [
        '[0] (N, 196, 192)',
        '[1] (14, 14)',
        '192 x 14 x 14',
    ]
    assert rows['backbone.layers.11'][2:] == [
        '(N, 198, 192)',
        '192 x 14 x 14 by tokens=dict(prefix=2)',
    ]
    assert not any(name.startswith('backbone.layers.11.') for name in rows)


def test_neck_and_repeated_calls(capsys):
    pytest.importorskip('mmcv.ops', reason='detection needs the full mmcv')
    arguments = ['retinanet_r18_fpn_1x_coco', '--input-size', '64x96', '--depth', '1']
    main(['layers', *arguments])
    rows = rows_of(capsys.readouterr().out)
    assert rows['neck'][2:4] == ['[0] (N, 256, 8, 12)', '[1] (N, 256, 4, 6)']
    calls, output = rows['bbox_head.retina_reg'][1:]
    assert calls == '5'
    assert output.split(' | ')[:2] == ['(N, 36, 8, 12)', '(N, 36, 4, 6)']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['resnet18_8xb32_in1'], 'Near names: .*resnet18_8xb32_in1k'),
        (
            ['mlp-mixer-base-p16_64xb64_in1k', '--input-size', '32'],
            '32x32.*--input-size',
        ),
        (['mae_vit-base-p16_8xb512-amp-coslr-300e_in1k'], 'a MAE is no mmpretrain'),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(['layers', *arguments])


def test_bad_size(capsys):
    with pytest.raises(SystemExit):
        main(['layers', 'resnet18_8xb32_in1k', '--input-size', '224,224'])
    assert "'224,224' is no size; give height and width" in capsys.readouterr().err
