# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfakd.models.distillers import TokenMap


def patches(height, width, prefix=0, suffix=0):
    """Tokens whose two channels are the row and the column; others are negative."""
    rows, columns = torch.meshgrid(
        torch.arange(height), torch.arange(width), indexing='ij'
    )
    grid = torch.stack([rows, columns], -1).reshape(1, height * width, 2).float()
    before, after = torch.full((1, prefix, 2), -1.0), torch.full((1, suffix, 2), -2.0)
    return torch.cat([before, grid, after], 1).expand(3, -1, -1)


@pytest.mark.parametrize(
    ('prefix', 'suffix', 'shape', 'cfg', 'grid'),
    [
        (0, 0, (4, 4), {}, None),
        (1, 0, (4, 4), dict(prefix=1), None),
        (5, 0, (4, 4), dict(prefix=5), None),
        (1, 2, (3, 3), dict(prefix=1, suffix=2), None),
        (0, 1, (1, 1), dict(suffix=1), None),
        (0, 0, (2, 6), dict(size=(2, 6)), None),
        (2, 0, (6, 2), dict(prefix=2, size=[6, 2]), None),
        (1, 0, (3, 3), dict(prefix=1, size=3), None),
        (0, 0, (2, 5), {}, (2, 5)),
        (1, 0, (5, 2), dict(prefix=1), torch.Size([5, 2])),
        # What the config says goes before what was recorded.
        (0, 0, (4, 2), dict(size=(4, 2)), (2, 4)),
    ],
)
def test_every_patch_comes_to_its_place(prefix, suffix, shape, cfg, grid):
    tokens = patches(*shape, prefix, suffix)
    feature = TokenMap(cfg)(tokens, grid)
    assert feature.shape == (3, 2, *shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            assert feature[:, :, row, column].tolist() == [[row, column]] * 3


def test_channels_last():
    feature = torch.randn(2, 3, 5, 7)
    tokens = TokenMap(dict(channels_last=True))
    assert torch.equal(tokens(feature.permute(0, 2, 3, 1)), feature)


def test_is_contiguous_and_passes_gradients():
    tokens = torch.randn(2, 10, 4, requires_grad=True)
    feature = TokenMap(dict(prefix=1))(tokens)
    # mmrazor's losses take a `view`.
    assert feature.is_contiguous()
    assert TokenMap(dict(channels_last=True))(torch.ones(2, 2, 3, 4)).is_contiguous()
    feature.sum().backward()
    assert not tokens.grad[:, 0].any() and (tokens.grad[:, 1:] == 1).all()


@pytest.mark.parametrize(
    'cfg',
    [
        dict(prefixes=1),
        dict(prefix=-1),
        dict(prefix=1.0),
        dict(suffix=None),
        dict(suffix=True),
        dict(size=0),
        dict(size=(7, 0)),
        dict(size=(7, 7, 7)),
        dict(size='7x7'),
        dict(channels_last=True, prefix=1),
    ],
)
def test_bad_configs(cfg):
    with pytest.raises(ValueError, match=r'tokens: got .* expected dict\(prefix=0'):
        TokenMap(cfg)


@pytest.mark.parametrize(
    ('cfg', 'shape', 'grid', 'message'),
    [
        (
            {},
            (2, 50, 8),
            None,
            r'50 patches \(a record of shape \(2, 50, 8\), prefix=0, suffix=0\), which '
            r'fill no square.*size=\(h, w\).*h \* w = 50.*50 = 1 \+ 7 x 7.*merged',
        ),
        (dict(prefix=1), (2, 253, 8), None, r'252 patches .*h \* w = 252'),
        (dict(prefix=3), (2, 2, 8), None, '-1 patches'),
        (dict(prefix=2), (2, 2, 8), None, '0 patches'),
        (
            dict(size=(7, 8)),
            (2, 50, 8),
            None,
            r'50 patches .*size 7 x 8 holds 56.*50 = 1 \+ 7 x 7',
        ),
        (
            {},
            (2, 25, 8),
            (4, 6),
            r'25 patches .*the recorded grid 4 x 6 holds 24.*`prefix`',
        ),
        ({}, (2, 8, 7, 7), None, r'\(2, 8, 7, 7\).*need no `tokens`'),
        ({}, (2, 8), None, r'\(2, 8\).*need no `tokens`'),
        ({}, (2, 196, 4, 4, 8), None, r'expects \(N, L, C\)'),
        (dict(channels_last=True), (2, 49, 8), None, r'\(2, 49, 8\).*\(N, H, W, C\)'),
    ],
)
def test_bad_features(cfg, shape, grid, message):
    with pytest.raises(ValueError, match=message):
        TokenMap(cfg)(torch.zeros(shape), grid)


@pytest.mark.parametrize(
    ('count', 'said'),
    [
        (197, '197 = 1 + 14 x 14'),
        (198, '198 = 2 + 14 x 14'),
        (201, '201 = 5 + 14 x 14'),
        (49, '49 = 0 + 7 x 7'),
        (252, None),
        (3, None),
    ],
)
def test_guesses_only_at_squares(count, said):
    with pytest.raises(ValueError) as error:
        TokenMap(dict(prefix=count))(torch.zeros(1, count, 1))
    assert ('If the grid is square' in str(error.value)) == (said is not None)
    assert said is None or f'square, {said}.' in str(error.value)
