# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a hosting service reads: workflows, issue forms, the container's recipe."""

import re
import shlex

import pytest
import yaml

from tests.helpers.packages import ROOT

WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
FORMS = sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('[!c]*.yml'))


def jobs():
    for workflow in WORKFLOWS:
        for name, job in yaml.safe_load(workflow.read_text())['jobs'].items():
            yield pytest.param(job, id=f'{workflow.stem}-{name}')


@pytest.mark.parametrize('job', [*jobs()])
def test_jobs_call_scripts_that_exist(job):
    for step in job['steps']:
        if 'uses' in step:
            assert re.fullmatch(r'[\w-]+/[\w-]+@v\d+', step['uses'])
            continue
        program, *words = shlex.split(step['run'])
        if program == 'bash':
            paths = [word for word in words if '/' in word]
            assert paths and all((ROOT / path).is_file() for path in paths)


def test_every_check_has_a_job():
    told = ''.join(path.read_text() for path in WORKFLOWS)
    scripts = [f'.ci/{file.name}' for file in (ROOT / '.ci').glob('*.sh')]
    assert len(scripts) >= 3
    for script in [*scripts, 'tools/run_tests.sh', 'tests/test_docs.py']:
        assert script in told


SCRIPTS = sorted([*(ROOT / 'tools').glob('*.sh'), *(ROOT / '.ci').iterdir()])


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_find_themselves(script):
    """Where CDPATH is set, `cd tools` may go elsewhere, and prints where it is."""
    lines = script.read_text().splitlines()
    assert lines.index('unset CDPATH') < next(
        i for i, line in enumerate(lines) if re.search(r'\bcd "', line)
    )


def test_versions_are_those_of_nox():
    workflow = yaml.safe_load((ROOT / '.github/workflows/versions.yml').read_text())
    rows = workflow['jobs']['nox']['strategy']['matrix']['include']
    stacks = re.findall(
        r"'([\w.]+)': Stack\(\s*'([\d.]+)'", (ROOT / 'noxfile.py').read_text()
    )
    assert [(row['session'], row['python']) for row in rows] == stacks


@pytest.mark.parametrize('form', FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_the_environment(form):
    body = yaml.safe_load(form.read_text())['body']
    assert any('`mmfakd env`' in str(field) for field in body)


def test_container_has_a_compiler():
    """Triton and torch.compile call one at run time: in the stage that remains."""
    last = (ROOT / 'Dockerfile').read_text().split('\nFROM ')[-1]
    [install] = re.findall(r'apt-get install (.*?)&&', last, re.S)
    assert {'g++', 'python3-dev'} <= {*install.split()}
    tried = (ROOT / '.github/workflows/ci.yml').read_text()
    assert re.search(r'docker run .*mmfakd -c .command -v gcc', tried)


def test_recipe_of_the_container():
    """It copies what the build reads, and uses files and extras that are there."""
    recipe = (ROOT / 'Dockerfile').read_text()
    for path in re.findall(r'requirements/[\w.-]+', recipe):
        assert (ROOT / path).is_file()
    setup = (ROOT / 'setup.cfg').read_text()
    extras = re.findall(r'\.\[(.+?)\]', recipe)
    assert len(extras) == 2
    for extra in ','.join(extras).split(','):
        assert re.search(rf'^{extra} = ', setup, re.M)
    ignored = (ROOT / '.dockerignore').read_text().split()
    needed = {'README.md', 'CITATION.cff', 'LICENSE', 'model-index.yml', 'setup.py'}
    assert not needed & {*ignored}
    assert not {'configs', 'mmfakd', 'requirements', 'tools'} & {*ignored}
