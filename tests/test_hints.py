# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What messages tell a user to run or to read is there for everybody."""

import ast
import re
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from mmfakd import messages
from mmfakd.cli import COMMANDS, make_parser
from mmfakd.model_zoo.shipped import config_names

PACKAGE = Path(__file__).resolve().parents[1] / 'mmfakd'
# What `pip install` does not bring.
CHECKOUT = re.compile(
    r'(?<![\w/:.])(tools|docs|tests|demo|requirements|configs|\.dev_scripts)/\w'
    r'|\bbash \w|\bREADME|\bCONTRIBUTING|\w\.(md|sh)\b'
)
# Paths within a package's metafiles, and the one function that looks first.
KNOWN = {
    ('model_zoo/find.py', 'configs/0'),
    ('messages.py', 'docs/en/0'),
}


def texts():
    """Yield every text of the package that is no docstring, in one piece."""
    for file in sorted(PACKAGE.rglob('*.py')):
        if '.mim' in file.parts:
            continue
        tree = ast.parse(file.read_text())
        documents = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and isinstance(node.body[0], ast.Expr)
        }
        formatted = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)]
        inner = {part for node in formatted for part in ast.walk(node)} - {*formatted}
        for node in ast.walk(tree):
            if node in documents or node in inner:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, 'value', '') for part in node.values)
                text = ''.join(p if isinstance(p, str) else '0' for p in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            yield file.relative_to(PACKAGE).as_posix(), text


TEXTS = [*texts()]


def test_no_message_names_what_only_a_checkout_has():
    # A page's bare name is what `documentation` takes.
    told = [(file, text) for file, text in TEXTS if not re.fullmatch(r'\w+\.md', text)]
    assert {(file, text) for file, text in told if CHECKOUT.search(text)} == KNOWN


def test_commands_of_messages_exist(capsys):
    """With their options; configs that are shown, too."""
    found = [call for _, text in TEXTS for call in re.findall('`mmfakd ([^`]+)`', text)]
    assert len(found) >= 10
    for call in found:
        command, *words = call.split()
        assert command in COMMANDS, call
        with pytest.raises(SystemExit):
            make_parser().parse_args([command, '--help'])
        told = capsys.readouterr().out
        for option in (word for word in words if word.startswith('--')):
            assert option in told, call
        if words[:1] == ['show']:
            assert words[1] in config_names()


def test_pages_are_where_the_reader_has_them(monkeypatch, tmp_path):
    assert messages.documentation('own_data.md') == 'docs/en/own_data.md'
    # As installed: no documents beside the package.
    monkeypatch.setattr(messages, '__file__', str(tmp_path / 'mmfakd/messages.py'))
    info = tmp_path / 'mmfakd-0.1.0.dist-info'
    info.mkdir()
    known = 'Project-URL: Documentation, https://example.org/docs\n'
    for address, page in (
        ('', "docs/en/own_data.md in mmfakd's source archive"),
        (known, 'https://example.org/docs/own_data.md'),
    ):
        (info / 'METADATA').write_text(f'Name: mmfakd\nVersion: 0.1.0\n{address}')
        metadata = Distribution.at(info).metadata
        monkeypatch.setattr(messages.metadata, 'metadata', lambda _, m=metadata: m)
        assert messages.documentation('own_data.md') == page
