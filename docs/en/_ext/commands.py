# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The options of every command, as its parser has them."""

from __future__ import annotations

import argparse
import re
from textwrap import dedent

from mmfakd.cli import make_parser
from mmfakd.messages import markdown

INTRODUCTION = """\
# Options of all commands

What `mmfakd COMMAND --help` prints. What the commands are for stands in
[Commands](../../commands.md).
"""


def pages() -> dict[str, str]:
    """Write the page.

    Returns:
        dict[str, str]: File name -> text.
    """
    lines = [INTRODUCTION]
    for name, parser in _commands(make_parser()).items():
        lines += [f'## {name}', '', *_described(parser), '']
        for action, inner in _commands(parser).items():
            lines += [f'### {name} {action}', '', *_described(inner), '']
    return {'index.md': '\n'.join(lines)}


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _described(parser: argparse.ArgumentParser) -> list[str]:
    lines = []
    for block in (parser.description or '').split('\n\n'):
        # A block of columns, or of commands, stays as it is.
        kept = re.search(r'^\S+ {2,}|^mmfakd ', block, re.MULTILINE)
        lines += ['```text', block, '```', ''] if kept else [_as_prose(block), '']
    # As long as its first word, so that the lines below stay where they are.
    usage = parser.format_usage().replace('usage:', '      ')
    lines += ['```text', dedent(usage).strip(), '```', '']
    rows = [['argument', 'meaning'], *_rows(parser)]
    return lines + (markdown(rows) if len(rows) > 1 else [])


def _rows(parser: argparse.ArgumentParser) -> list[list[str]]:
    formatter = parser._get_formatter()
    rows = []
    for action in parser._actions:
        hidden = action.help == argparse.SUPPRESS or action.dest == 'help'
        if hidden or isinstance(action, argparse._SubParsersAction):
            continue
        text = formatter._expand_help(action) if action.help else ''
        name = formatter._format_action_invocation(action)
        rows.append([f'`{name}`'.replace('|', r'\|'), _as_prose(text)])
    return rows


def _as_prose(text: str) -> str:
    """Options as code, and nothing that Markdown would take for its own."""
    parts = re.split(r'(`[^`]*`|(?<!\w)--?[a-z][\w-]*)', text)
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = f'`{part.strip("`")}`'
        else:
            parts[place] = re.sub(r'([|*_<\[])', r'\\\1', part)
    return ''.join(parts)
