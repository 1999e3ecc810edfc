# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Commands in documents and in headers of studies: they and their configs exist."""

import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config

from mmfakd.cli import COMMANDS, make_parser
from mmfakd.engine.processes import split_options
from mmfakd.model_zoo.find import config_file
from tests.test_docs import DOCUMENTS

REPOSITORY = Path(__file__).resolve().parents[1]
STUDIES = sorted(
    str(file.relative_to(REPOSITORY))
    for file in (REPOSITORY / '.dev_scripts/studies').glob('*.yml')
)
# Configs that are here, or in a library.
OURS = r'configs/|\.dev_scripts/|\w+::'
# What a model without a teacher cannot do.
OF_PAIRS = ('check', 'check-teacher', 'detections')


def blocks(document):
    """Blocks of shell commands; of a study what its comments say."""
    text = (REPOSITORY / document).read_text()
    if document.endswith('.yml'):
        return [re.sub('^# *', '', text, flags=re.M)]
    return re.findall(r'^```bash\n(.*?)^```', text, re.M | re.S)


def calls_of(block):
    """Every call of mmfakd in a block, with what its variables of the shell hold."""
    block = re.sub(r'\\\n\s*', '', block)
    block = re.sub(r'"[^"]*"', lambda match: match[0].replace('\n', ' '), block)
    values = {}
    for line in re.split(r'\n|&&', block):
        line = re.sub(r'\$\{?(\w+)\}?', lambda m: values.get(m[1], m[0]), line)
        if given := re.fullmatch(r'\s*(?:export )?(\w+)=("[^"]*"|\S+)', line):
            values[given[1]] = given[2].strip('"')
        elif call := re.match(r'\s*(?:\w+=\S+ )*mmfakd (.+)', line):
            yield call[1]


CALLS = [
    pytest.param(document, call, id=f'{document}-{call}')
    for document in (*DOCUMENTS, *STUDIES)
    for block in blocks(document)
    for call in calls_of(block)
]

# Configs that a page names as the student of a pair: they have no teacher.
ALONE = {
    match[1]
    for param in CALLS
    if (match := re.match(r'pair (\S+\.py) ', param.values[1]))
}


def parse(call):
    """The arguments of a call, for what a variable that nobody sets holds a number."""
    words = shlex.split(re.sub(r'\$\{?\w+\}?', '0', call), comments=True)
    if any(word.startswith('--nproc') for word in words):
        words, _ = split_options(words)
    return make_parser().parse_args(words), words[0]


def configs_of(args, command):
    """The configs that a call names."""
    for key in ('student', 'teacher') if command == 'pair' else ('config',):
        given = getattr(args, key, None) or []
        yield from [given] if isinstance(given, str) else given


def is_of_a_user(name):
    """Whether a config, or a work dir, is the reader's own or a placeholder."""
    mine = name.endswith('.py') and not re.match(OURS, name)
    return mine or name.isupper() or name.startswith('work_dirs/')


def test_variables_and_continuations_are_followed():
    block = (
        'step="mmfakd benchmark\n    --suite step"\npair=a_b\n'
        '$step -o x.json \\\n    --config kd_$pair\n'
        'A=1 mmfakd env && mmfakd zoo get $NAME\n'
    )
    assert [*calls_of(block)] == [
        'benchmark     --suite step -o x.json --config kd_a_b',
        'env ',
        'zoo get $NAME',
    ]


def test_studies_are_read():
    assert any(param.values[0] in STUDIES for param in CALLS)
    assert sum('costs.md' in param.values[0] for param in CALLS) >= 4


@pytest.mark.parametrize(('document', 'call'), CALLS)
def test_commands_parse(document, call, capsys):
    """A command that exists, with options that it has."""
    try:
        parse(call)
    except SystemExit:
        pytest.fail(f'{document}: mmfakd {call}\n{capsys.readouterr().err}')


@pytest.mark.parametrize(('document', 'call'), CALLS)
def test_configs_fit_their_commands(document, call):
    """Those of ours exist, and where a teacher is needed, there is one."""
    args, command = parse(call)
    for name in configs_of(args, command):
        if command in OF_PAIRS:
            assert name not in ALONE, f'mmfakd {command} needs a pair'
        if '$' in call or is_of_a_user(name):
            continue
        # An error with near names where there is none.
        inside = '/' in name and '::' not in name
        file = config_file(str(REPOSITORY / name) if inside else name)
        if command in OF_PAIRS:
            assert 'teacher' in Config.fromfile(file).model, name


def test_every_command_is_told():
    text = (REPOSITORY / 'docs/en/commands.md').read_text()
    rows = re.findall(r'^\| `([\w-]+)` \|.*`mmfakd ([\w-]+)', text, re.M)
    assert [name for name, _ in rows] == [*COMMANDS]
    assert all(name == called for name, called in rows)


def test_examples_of_the_table_parse():
    text = (REPOSITORY / 'docs/en/commands.md').read_text()
    for call in re.findall(r'`mmfakd ([^`]*)` \|$', text, re.M):
        make_parser().parse_args(shlex.split(call))
