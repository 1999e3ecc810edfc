# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Count the lines of code of a checkout: no blank lines, comments or docstrings.

python tests/helpers/count_lines.py [CHECKOUT]
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

FOLDERS = ('mmfakd', 'tools', '.dev_scripts', 'demo')
NO_CODE = ('COMMENT', 'NL', 'NEWLINE', 'INDENT', 'DEDENT', 'ENDMARKER')
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count_lines(text: str) -> int:
    """Count the lines of code in a text.

    Args:
        text (str): Python code.

    Returns:
        int: Their number.
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if tokenize.tok_name[token.type] not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= {*range(docstring.lineno, (docstring.end_lineno or 0) + 1)}
    return len(lines)


if __name__ == '__main__':
    root = Path(
        sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    )
    counts = {
        folder: sum(
            count_lines(file.read_text())
            for file in (root / folder).rglob('*.py')
            if '.mim' not in file.parts
        )
        for folder in FOLDERS
    }
    print(*(f'{folder}: {count}' for folder, count in counts.items()), sep='\n')
    print(f'all: {sum(counts.values())}')
