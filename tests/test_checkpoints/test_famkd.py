# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmfakd.analysis.benchmark.naive_layers import NaiveFrequencyAttention
from mmfakd.checkpoints.famkd import convert_famkd_state_dict
from mmfakd.models.connectors import ReviewConnector
from mmfakd.models.layers import FrequencyAttention, LocalCrossAttention
from tests.helpers.golden import distance, load_golden, strip_prefix


@pytest.fixture
def chain():
    """A golden list of three levels, deepest first."""
    return strip_prefix(load_golden('review_chain_mid3'), 'state.')


def chain_connector():
    return ReviewConnector([4, 8, 8], [6, 10, 10], 8, sizes=[8, 4, 1])


@pytest.mark.parametrize('high_pass', [0, 0.1, 0.3])
def test_frequency_attention(high_pass):
    naive = NaiveFrequencyAttention(3, 5, (28, 30), high_pass)
    state = naive.famkd_state_dict()
    layer = FrequencyAttention(3, 5, size=(28, 30), high_pass=high_pass)
    layer.load_state_dict(convert_famkd_state_dict(state, high_pass=high_pass))
    x = torch.randn(2, 3, 28, 30)
    assert distance(layer(x), naive(x)) < 1e-5


def test_real_view_and_scalar_gates():
    state = NaiveFrequencyAttention(3, 5, (8, 8)).famkd_state_dict()
    expected = convert_famkd_state_dict(state)
    state['weights1'] = torch.view_as_real(state['weights1'])
    state['rate1'] = state['rate1'][0]
    for key, value in convert_famkd_state_dict(state).items():
        assert torch.equal(value, expected[key])
        assert not value.is_complex()


@pytest.mark.parametrize(
    'given', [torch.ones(3, 5, 8, 8), torch.ones(3, 5, 8, 8, 3), torch.ones(1).cfloat()]
)
def test_filters_of_another_shape(chain, given):
    state = NaiveFrequencyAttention(3, 5, (8, 8)).famkd_state_dict()
    with pytest.raises(ValueError, match='got weights1 of shape .*a last dimension'):
        convert_famkd_state_dict({**state, 'weights1': given})
    with pytest.raises(ValueError, match=r'got 1\.conv2\.0\.weights1 of shape'):
        convert_famkd_state_dict({**chain, '1.conv2.0.weights1': given})


def test_what_is_no_tensor(chain):
    with pytest.raises(ValueError, match=r'got 1\.conv2\.0\.rate1 of type float'):
        convert_famkd_state_dict({**chain, '1.conv2.0.rate1': 0.5})


def test_cross_attention():
    state = strip_prefix(load_golden('cross_attention_c8_6x6'), 'param.')
    layer = LocalCrossAttention(8)
    layer.load_state_dict(convert_famkd_state_dict(state))
    assert torch.equal(layer.row_offset.flatten(), state['rel_h'].flatten())
    assert torch.equal(layer.query.weight, state['query_conv.weight'])


@pytest.mark.parametrize('level', [0, 1, 2])
def test_level(chain, level):
    connector = chain_connector()
    state = convert_famkd_state_dict(strip_prefix(chain, f'{level}.'))
    connector.levels[2 - level].load_state_dict(state)


def test_levels_run_shallow_to_deep(chain):
    converted = convert_famkd_state_dict(chain)
    chain_connector().load_state_dict(converted)
    # The deepest level's conv1 has no effect.
    assert any(key.startswith('0.conv1.') for key in chain)
    assert not any('levels.2.match' in key for key in converted)
    assert torch.equal(
        converted['levels.0.match.conv.weight'], chain['2.conv1_x.0.weight']
    )


def test_tensors_are_copies(chain):
    converted = convert_famkd_state_dict(chain)
    converted['levels.2.norm.weight'].zero_()
    assert chain['0.conv2.1.weight'].abs().sum() > 0


def test_unknown_and_missing_keys_are_listed(chain):
    with pytest.raises(
        ValueError, match=r'Unknown keys: 1\.fc\.weight\. Missing keys:'
    ):
        convert_famkd_state_dict({**chain, '1.fc.weight': torch.ones(1)})
    del chain['1.att_conv.rel_h'], chain['1.conv2.0.w0.bias']
    missing = r'Missing keys: 1\.att_conv\.rel_h, 1\.conv2\.0\.w0\.bias\.'
    with pytest.raises(ValueError, match=missing):
        convert_famkd_state_dict(chain)
    with pytest.raises(ValueError, match=r'Unknown keys: module\.0.*strip prefixes'):
        convert_famkd_state_dict({f'module.{k}': v for k, v in chain.items()})
    with pytest.raises(ValueError, match=r'Unknown keys: conv1\.weight\. Missing'):
        convert_famkd_state_dict({'conv1.weight': torch.ones(1)})
    with pytest.raises(ValueError, match='empty state dict'):
        convert_famkd_state_dict({})


def test_levels_without_gaps(chain):
    chain = {key: value for key, value in chain.items() if not key.startswith('1.')}
    with pytest.raises(ValueError, match=r'levels \[0, 2\], expected 0 to 1'):
        convert_famkd_state_dict(chain)
