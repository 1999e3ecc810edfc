# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfakd.ops.maps import as_map, check_map, check_real, resize


def test_vectors_are_maps_of_one_pixel():
    vector, maps = torch.randn(2, 3), torch.randn(2, 3, 4, 5)
    assert as_map(vector).shape == (2, 3, 1, 1)
    assert as_map(maps) is maps


def test_resizes_where_sizes_differ():
    maps = torch.arange(4.0).view(1, 1, 2, 2)
    assert resize(maps, (2, 2)) is maps
    large = resize(maps, (4, 2))
    assert torch.equal(large, maps.repeat_interleave(2, dim=2))


@pytest.mark.parametrize('shape', [(2, 3), (2, 4, 5, 5), (2, 3, 5)])
def test_other_shapes_are_refused(shape):
    check_map(torch.zeros(2, 3, 5, 5), 3, 'Layer')
    message = r'Layer got an input of shape .*, expected \(N, 3, H, W\): adapt'
    with pytest.raises(ValueError, match=message):
        check_map(torch.zeros(shape), 3, 'Layer')


@pytest.mark.parametrize('dtype', [torch.complex64, torch.long, torch.bool])
def test_other_dtypes_are_refused(dtype):
    x, y = torch.zeros(2, 3, 5, 5), torch.zeros(2, 3, 5, 5, dtype=dtype)
    for real in (torch.float16, torch.bfloat16, torch.float64):
        check_real('Layer', x, x.to(real))
    with pytest.raises(TypeError, match=f'^Layer got features of dtype {dtype}, exp'):
        check_map(y, 3, 'Layer')
    with pytest.raises(TypeError, match=f'^got .*float32 and {dtype}, expected real'):
        check_real('', x, y)
