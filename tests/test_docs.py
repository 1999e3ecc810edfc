# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The documents name what there is: files, links, modules, extras, components."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from mmengine.registry import Registry

from mmfakd import registry, utils

REPOSITORY = Path(__file__).resolve().parents[1]
ROOTS = (
    'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', '.github', 'docs',
    'configs', 'tests', 'tools', 'demo',
)  # fmt: skip
DOCUMENTS = sorted(
    str(file.relative_to(REPOSITORY))
    for root in ROOTS
    for file in [REPOSITORY / root, *(REPOSITORY / root).rglob('*.md')]
    if file.suffix == '.md' and 'generated' not in file.parts
)
SCRIPTS = sorted(
    str(file.relative_to(REPOSITORY))
    for file in (REPOSITORY / '.dev_scripts').glob('*.py')
)
MAP = 'docs/en/architecture.md'
# Paths into these folders are ours.
OURS = r'(?<![\w./-])(?:mmfakd|tools|\.dev_scripts|demo|tests)/[\w./-]*\w/?'
MODULE = r'`(mmfakd(?:\.[a-z]\w*)+)`'


def text_of(document):
    """A document without the first column of tables of what was before."""
    lines, before = [], False
    for line in (REPOSITORY / document).read_text().splitlines():
        if not line.lstrip().startswith('|'):
            before = False
        elif line.split('|')[1].strip() == 'before':
            before = True
        lines.append(line.split('|', 2)[2] if before else line)
    return '\n'.join(lines)


def is_there(path):
    return (REPOSITORY / path).exists()


def test_documents_are_found():
    assert {'README.md', 'CHANGELOG.md', MAP, 'docs/en/commands.md'} <= {*DOCUMENTS}
    assert len(DOCUMENTS) >= 15


def test_paths_of_the_map():
    named = re.findall(r'`([^`\n]*/[^`\n]*)`', (REPOSITORY / MAP).read_text())
    assert len(named) >= 30
    assert [path for path in named if not is_there(path)] == []


def test_rows_of_the_map():
    """Whoever adds something finds a row with its code and its test."""
    text = (REPOSITORY / MAP).read_text()
    rows = [line.split('|')[1:-1] for line in text.splitlines() if line[:3] == '| a']
    assert len(rows) >= 10
    for what, code, test, *_ in rows:
        assert '`' in code and '`tests/' in test, what


@pytest.mark.parametrize('document', DOCUMENTS)
def test_named_files_are_there(document):
    text = text_of(document)
    assert [path for path in re.findall(OURS, text) if not is_there(path)] == []


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_name_files_that_are_there(script):
    """In what they say of themselves."""
    text = ast.get_docstring(ast.parse((REPOSITORY / script).read_text()))
    named = re.findall(r'(?<![\w./-])\.dev_scripts/[\w./-]*\w', text)
    assert [path for path in named if not is_there(path)] == []


@pytest.mark.parametrize('document', DOCUMENTS)
def test_named_extras_are_there(document):
    found = re.findall(r"(?:mmfakd|\.whl|'\.)\[([\w,-]+)\]", text_of(document))
    extras = {extra for group in found for extra in group.split(',')}
    setup = (REPOSITORY / 'setup.cfg').read_text()
    known = re.findall(r'^([\w-]+) = file: requirements/', setup, re.M)
    assert extras <= {*known}


@pytest.mark.parametrize('document', DOCUMENTS)
def test_named_modules_are_there(document):
    """Modules, and names in them."""
    for name in re.findall(MODULE, text_of(document)):
        try:
            import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition('.')
            assert hasattr(import_module(module), attribute), name


@pytest.mark.parametrize('document', DOCUMENTS)
def test_links_lead_somewhere(document):
    text = re.sub(r'^```.*?^```', '', text_of(document), flags=re.M | re.S)
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if re.match(r'\w+:', link):
            continue
        path, _, heading = link.partition('#')
        if path.startswith('generated/'):
            # Pages of the site alone: building it follows its links.
            continue
        target = (REPOSITORY / document).parent / path if path else Path(document)
        target = REPOSITORY / target
        assert target.exists(), link
        if heading:
            headings = re.findall(r'^#+ (.*)$', target.read_text(), re.M)
            assert heading in map(anchor, headings), link


def anchor(heading):
    """What a heading is called in a link."""
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def test_every_component_is_told():
    """With a row in docs/en/components.md, and no row of what is not there."""
    text = (REPOSITORY / 'docs/en/components.md').read_text()
    rows = re.findall(r'^\| (`.*?) \|', text, re.M)
    told = {name for row in rows for name in re.findall(r'`(\w+)`', row)}
    registered = set()
    for children in vars(registry).values():
        if isinstance(children, Registry):
            children.import_from_location()
            registered |= {*children.module_dict}
    assert registered <= told
    assert {name for name in told - registered if not hasattr(utils, name)} == set()


def test_first_screen_of_the_readme():
    """What it gains, how to start, and both commands of all set-up."""
    screen = (REPOSITORY / 'README.md').read_text()[:3500]
    assert '<!-- gains -->' in screen
    for command in ('quickstart.sh', 'run_tests.sh'):
        assert f'\nbash tools/{command} ' in screen


# The page on installation says what stands for the dot.
@pytest.mark.parametrize(
    'document', sorted({*DOCUMENTS} - {'docs/en/installation.md', 'CHANGELOG.md'})
)
def test_nothing_is_installed_by_a_name_that_no_index_has(document):
    found = re.findall(r"(?:pip|mim) install[^`\n]*'?mmfakd\b.*", text_of(document))
    assert found == []
