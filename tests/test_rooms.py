# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The plan of the house, read off the code: who imports whom, what is how long."""

import ast
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# From the top to the bottom; a module imports from its own room and from those below.
ROOMS = [
    ['mmfakd.__main__'],
    ['mmfakd.utils'],
    ['mmfakd.cli'],
    ['mmfakd.analysis'],
    ['mmfakd.export'],
    ['mmfakd.plain'],
    ['mmfakd.pairing'],
    ['mmfakd.engine'],
    ['mmfakd.pictures'],
    ['mmfakd.models.algorithms'],
    ['mmfakd.models.distillers'],
    ['mmfakd.models.connectors', 'mmfakd.models.losses', 'mmfakd.models.backbones'],
    ['mmfakd.models.layers'],
    ['mmfakd.datasets'],
    ['mmfakd.checkpoints'],
    ['mmfakd.model_zoo'],
    ['mmfakd.ops'],
    ['mmfakd.registry'],
    ['mmfakd.compat'],
    ['mmfakd.messages'],
    ['mmfakd.version'],
]
# They stand for all below them.
DOORS = ('mmfakd', 'mmfakd.models')
SOURCES = ('mmfakd', 'tools', '.dev_scripts', 'demo')


def python_files(*folders):
    return [
        file
        for folder in folders
        for file in sorted((REPOSITORY / folder).rglob('*.py'))
        if '.mim' not in file.parts
    ]


def read(file):
    return ast.parse(file.read_text(), str(file))


def module_of(file):
    parts = file.relative_to(REPOSITORY).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(file): file for file in python_files('mmfakd')}


def imports(module):
    """Names of mmfakd's modules that a module imports, wherever it does."""
    file = MODULES[module]
    package = module if file.name == '__init__.py' else module.rpartition('.')[0]
    for node in ast.walk(read(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parts = package.split('.')
                parts = parts[: len(parts) - node.level + 1]
                base = '.'.join([*parts, base] if base else parts)
            # A name may be a module of the package.
            inner = [f'{base}.{alias.name}' for alias in node.names]
            names = [name for name in inner if name in MODULES] or [base]
        else:
            continue
        yield from (name for name in names if name.partition('.')[0] == 'mmfakd')


def floor(module):
    for number, rooms in enumerate(ROOMS):
        if any(f'{module}.'.startswith(f'{room}.') for room in rooms):
            return number, next(r for r in rooms if f'{module}.'.startswith(f'{r}.'))
    return None


def test_every_module_has_a_room():
    assert [m for m in MODULES if floor(m) is None and m not in DOORS] == []


@pytest.mark.parametrize('module', sorted(set(MODULES) - set(DOORS)))
def test_imports_run_downhill(module):
    (own_floor, own_room), wrong = floor(module), []
    for name in imports(module):
        assert name in MODULES, f'{module} imports {name}, which is no module'
        if name == 'mmfakd':
            continue
        # The room of rooms is as high as its highest.
        there = floor('mmfakd.models.algorithms' if name in DOORS else name)
        assert there is not None, f'{module} imports {name}: name one of its rooms'
        if there[0] < own_floor or (there[0] == own_floor and there[1] != own_room):
            wrong.append(name)
    assert wrong == []


def test_no_module_imports_itself_in_a_circle():
    state = {}

    def visit(module, path):
        if state.get(module) == 'done':
            return
        assert state.get(module) != 'open', ' -> '.join([*path, module])
        state[module] = 'open'
        for name in imports(module):
            # A package's __init__ lists its own modules.
            if name != module and not module.startswith(f'{name}.'):
                visit(name, [*path, module])
        state[module] = 'done'

    for module in MODULES:
        visit(module, [])


@pytest.mark.parametrize('room', ['mmfakd.ops', 'mmfakd.models.layers'])
def test_layers_are_pure_torch(room):
    for module in MODULES:
        if not f'{module}.'.startswith(f'{room}.'):
            continue
        for node in ast.walk(read(MODULES[module])):
            names = []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                assert not name.startswith(('mm', 'cv2', 'numpy')) or name.startswith(
                    ('mmfakd.ops', 'mmfakd.models.layers')
                ), f'{module} imports {name}'


def test_nothing_edits_the_path_of_imports():
    tracked = subprocess.run(
        ['git', 'ls-files', '*.py'], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.split()
    files = [REPOSITORY / name for name in tracked] or python_files(*SOURCES, 'tests')
    # This one, and two that do for a forked process what an interpreter does.
    own = (Path(__file__).name, 'forked.py', 'forked_program.py')
    for file in files:
        if not file.is_file() or file.name in own:
            continue
        for node in ast.walk(read(file)):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                assert text != 'sys.path', f'{file}:{node.lineno} edits sys.path'
            named = getattr(node, 'attr', getattr(node, 'name', None))
            assert named not in (
                'spec_from_file_location',
                'run_path',
                'SourceFileLoader',
            ), f'{file}: imports by path'


def test_length():
    """A script fits on a screen, and so does a function without its docstring."""
    for file in python_files('tools'):
        assert len(file.read_text().splitlines()) <= 60, file
    lines = sum(len(f.read_text().splitlines()) for f in python_files('mmfakd/utils'))
    assert lines < 60
    for file in python_files(*SOURCES):
        for node in ast.walk(read(file)):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            length = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                length -= docstring.end_lineno - docstring.lineno + 1
            assert length <= 60, f'{file}:{node.lineno} {node.name} has {length} lines'


def test_packages_alone_say_what_they_export():
    for module, file in MODULES.items():
        if file.name == '__init__.py':
            continue
        named = [n.id for n in ast.walk(read(file)) if isinstance(n, ast.Name)]
        assert '__all__' not in named, f'{module} has an __all__'
