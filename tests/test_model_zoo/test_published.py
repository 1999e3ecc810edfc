# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What the command line lists of the zoo, and which names have weights."""

import re
from pathlib import Path

import pytest

from mmfakd import cli
from mmfakd.model_zoo import find, published
from mmfakd.model_zoo.find import find_config, find_weights, zoo_entries, zoo_weights
from mmfakd.model_zoo.published import list_published, published_entry

LAYER = 'fakd_layer_r18w32_r18w4_1xb50_digits'


def test_list_has_scores_of_weights_and_of_seeds(capsys):
    cli.main(['zoo', 'list'])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert re.split('  +', heading) == list(published._HEADING)
    names = [row.split()[0] for row in rows]
    measured = [e['Name'] for e in zoo_entries('mmfakd') if 'Results' in e]
    assert sorted(names) == sorted(measured)
    (row,) = (row for row in rows if row.startswith(f'{LAYER} '))
    entry = published_entry(LAYER)
    metrics = entry['Results'][0]['Metrics']
    assert re.split('  +', row) == [
        LAYER,
        'Digits',
        'Top 1 Accuracy',
        f'{entry["Published"]["Metrics"]["Top 1 Accuracy"]:.2f}',
        f'{metrics["Top 1 Accuracy"]:.2f} (5 seeds, spread {metrics["Spread"]:.2f})',
        f'{entry["Published"]["Size (MB)"]} MB, here',
    ]


def test_list_of_a_pattern():
    _, *rows = list_published('fakd_*_digits').splitlines()
    assert [row.split()[0] for row in rows] == [LAYER, LAYER.replace('layer', 'review')]
    with pytest.raises(ValueError, match=f"fits '\\*layre\\*digits'.*{LAYER}"):
        list_published('*layre*digits')


@pytest.mark.parametrize('name', [LAYER, LAYER.upper(), f'mmfakd::{LAYER}'])
def test_entry_of_a_name(name):
    entry = published_entry(name)
    assert entry['Name'] == LAYER
    assert Path(entry['Weights']).is_file()
    assert zoo_weights()[LAYER] == entry['Weights']


def test_names_without_weights():
    with pytest.raises(ValueError, match=f'is no model of mmfakd. Near names: {LAYER}'):
        published_entry(LAYER[:-7])
    with pytest.raises(ValueError, match='no weights are published.*`mmfakd train'):
        published_entry('vgg8_1xb64_cifar100')


def test_places_of_weights(monkeypatch, tmp_path):
    """Elsewhere than in the package: at an address, or nowhere yet."""
    file = {'File': 'big-01234567.pth', 'Size (MB)': 23.1, 'Metrics': {'box AP': 50.0}}
    entries = [
        {'Name': 'here', 'Weights': str(tmp_path), 'Published': file},
        {'Name': 'far', 'Weights': 'https://example.org/big.pth', 'Published': file},
        {'Name': 'nowhere', 'Weights': None, 'Published': file},
    ]
    monkeypatch.setattr(published, 'zoo_entries', lambda package: entries)
    lines = list_published().splitlines()
    assert lines[2].startswith('far') and lines[2].endswith('23.1 MB, to download')
    assert lines[3].endswith('23.1 MB, no address yet')
    assert published_entry('far') is entries[1]
    told = 'big-01234567.pth of 23.1 MB, are too large for the package'
    with pytest.raises(ValueError, match=told):
        published_entry('nowhere')


def test_pair_finds_weights_of_own_configs(tmp_path, monkeypatch):
    """By the path of the file, which is what a name of ours becomes."""
    teacher = 'r18w32_1xb50_digits'
    assert find_weights(find_config(teacher)) == teacher
    assert find_weights(find_config('vgg8_1xb64_cifar100')) is None
    monkeypatch.chdir(tmp_path)
    own = Path(f'{teacher}.py')
    own.write_text('a = 1')
    assert find_weights(str(own)) is None


def test_links_of_an_editable_install(tmp_path, monkeypatch):
    """Also of one that was made before there were weights."""
    for name in ('configs', 'model-index.yml'):
        (tmp_path / name).symlink_to(find.package_folder('mmfakd') / name)
    monkeypatch.setattr(find, 'package_folder', lambda package: tmp_path)
    entries = zoo_entries.__wrapped__('mmfakd')
    (weights,) = (e['Weights'] for e in entries if e['Name'] == LAYER)
    assert Path(weights).is_file()
