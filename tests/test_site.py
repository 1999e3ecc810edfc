# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The site: its pages, those that are written when it is built, its links.

That Sphinx builds it without a warning is tested by `.ci/docs.sh`.
"""

import json
import re
from inspect import isclass
from pkgutil import resolve_name

import pytest
import torch
import yaml
from mmengine.registry import Registry

from docs.en._ext import api, commands, configs, documents
from mmfakd import registry
from mmfakd.cli import COMMANDS
from mmfakd.model_zoo.shipped import config_names
from mmfakd.models.layers import FrequencyAttention
from mmfakd.pairing.command import write_pair
from mmfakd.registry import MODELS

SITE, REPOSITORY = documents.SITE, documents.REPOSITORY
GENERATED = {
    f'generated/{room}/{page}'
    for room, pages in (
        ('api', api.pages()),
        ('commands', commands.pages()),
        ('configs', configs.pages()),
        ('project', documents.pages()),
    )
    for page in pages
}


def written_pages():
    """Pages of the checkout, as Sphinx finds them."""
    return {
        page.relative_to(SITE).as_posix()
        for page in SITE.rglob('*.md')
        if not {'generated', '_build'} & {*page.relative_to(SITE).parts}
    }


def in_trees(page, text):
    """What the toctrees of a page list, relative to the site."""
    folder = page.rpartition('/')[0]
    for block in re.findall(r'^```\{toctree\}\n(.*?)^```', text, re.M | re.S):
        for line in block.splitlines():
            if line and line[0] != ':':
                name = re.sub(r'.*<(.*)>', r'\1', line)
                yield f'{folder}/{name}' if folder else name


def test_every_page_is_in_a_tree():
    """Add a new page to a toctree in docs/en/index.md."""
    listed = [*in_trees('index.md', (SITE / 'index.md').read_text())]
    for room, pages in (('api', api.pages()), ('configs', configs.pages())):
        page = f'generated/{room}/index.md'
        listed += in_trees(page, pages['index.md'])
    assert len(listed) == len({*listed})
    there = {re.sub(r'\.(md|rst)$', '', page) for page in written_pages() | GENERATED}
    assert {*listed} == there - {'index'}


def test_every_registered_class_has_a_page():
    pages = api.pages()
    found = 0
    for place, children in vars(registry).items():
        if not isinstance(children, Registry):
            continue
        children.import_from_location()
        for name, thing in children.module_dict.items():
            text = pages[f'{name}.rst']
            kind, path = re.search(r'\.\. auto(\w+):: (\S+)', text).groups()
            assert resolve_name(path) is thing
            assert kind == ('class' if isclass(thing) else 'function')
            assert f"``type='mmfakd.{name}'``, in the registry ``{place}``" in text
            assert f'[{name}]({name}.rst)' in pages['index.md']
            found += 1
    assert found >= 40


@pytest.mark.parametrize('path', api.FROM_PYTHON)
def test_what_python_calls_has_a_page(path):
    assert f':: {path}\n' in api.pages()[f'{path}.rst']


def test_every_option_is_told():
    text = commands.pages()['index.md']
    sections = dict(re.findall(r'^## (\S+)\n(.*?)(?=^## |\Z)', text, re.M | re.S))
    assert [*sections] == [*COMMANDS]
    assert '| `--teacher-ckpt TEACHER_CKPT` |' in sections['train']
    assert '(default: 1.0)' in sections['check-teacher']
    assert '### configs copy' in sections['configs']
    # Markdown would take them for its own.
    assert not re.search(r'^\|.*[^\\`]<', text, re.M)


def test_every_config_is_in_the_index():
    text = configs.pages()['index.md']
    listed = re.findall(r'^\| `([\w-]+)` \|', text, re.M)
    assert sorted(listed) == config_names()
    name = 'fakd_layer_gfl_r18_r18w16_1xb8_bccd'
    metafile = REPOSITORY / 'configs/fakd/bccd/metafile.yml'
    models = yaml.safe_load(metafile.read_text())['Models']
    [model] = [model for model in models if model['Name'] == name]
    metrics, size = model['Results'][0]['Metrics'], model['Published']['Size (MB)']
    score = '{box AP} ({Spread}), {Seeds} seeds'.format_map(metrics)
    row = f'gfl_r18w16 | gfl_r18 | box AP {score} | {size} MB |'
    assert f'`{name}` | {row}' in text


def test_links_into_the_repository_lead_to_pages():
    moved = documents.with_links_from(
        REPOSITORY / 'configs/fakd/digits/README.md', 'configs/digits.md'
    )
    assert '](../../../../configs/fakd/digits/r18w32_1xb50_digits.py)' in moved
    wanted = {
        'configs/fakd': 'generated/configs/index.md',
        'configs/fakd/bccd/README.md': 'generated/configs/bccd.md',
        'CHANGELOG.md': 'generated/project/changelog.md',
        'mmfakd/models/losses/nkd_loss.py': 'generated/api/NKDLoss.rst',
        'docs/en/tuning.md': 'tuning.md',
    }
    for file, page in wanted.items():
        text = documents.moved(f'[a](../../{file}#b) [c](https://d.e)', SITE, SITE)
        assert text == f'[a]({page}#b) [c](https://d.e)'


def test_diagrams_are_drawn():
    pytest.importorskip('sphinx')
    from docs.en._ext.diagrams import BLOCK, LOOKS, PICTURES, picture

    found = {
        picture(text, look)
        for page in written_pages()
        for text in BLOCK.findall((SITE / page).read_text())
        for look in LOOKS
    }
    assert {*PICTURES.iterdir()} == found and len(found) >= 4


def test_dead_links_are_found(tmp_path):
    pytest.importorskip('bs4')
    from docs.en._ext.check_links import dead_links

    (tmp_path / 'b.html').write_text('<p id="here">')
    links = ['b.html#here', 'b.html#there', 'c.html', '#up', 'https://d.e', 'a.html']
    text = ''.join(f'<a href="{link}">x</a>' for link in links)
    (tmp_path / 'a.html').write_text(f'{text}<img src="d.png"><i id="up">')
    found = ['a.html: b.html#there', 'a.html: c.html', 'a.html: d.png']
    assert [*dead_links(tmp_path)] == found


def test_page_of_transformers(tmp_path, monkeypatch):
    """The table that it quotes, and the numbers of weights."""
    page = (SITE / 'transformers.md').read_text()
    monkeypatch.chdir(tmp_path)
    said = write_pair(
        'deit-tiny_4xb256_in1k', 'deit-small_4xb256_in1k', 'b.py', command=['mmfakd']
    )
    [quoted] = re.findall(r'^```text\n(.*?)^```', page, re.M | re.S)
    assert quoted in said
    added = int(re.search(r'adds ([\d,]+) weights', said)[1].replace(',', ''))
    assert f'adds {added / 1e6:.0f} million' in page
    names = {}
    snippet = re.search(r'^connector = .*?^\)', page, re.M | re.S)[0]
    exec(snippet, {}, names)
    with torch.device('meta'):
        small = MODELS.build(names['connector'])
        wide = FrequencyAttention(768, 768, size=14)
    count = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (small, wide)]
    assert f'This has {count[0]:.1f} million' in page
    assert f'{int(count[1])}\nmillion' in page or f'{int(count[1])} million' in page


def test_costs_name_no_folders():
    """Logs of costs are published: names of files alone, no paths."""
    for log in (SITE / 'costs').glob('*.json'):
        settings = json.loads(log.read_text())['settings']
        assert not any('/' in name for name in settings['config'])
