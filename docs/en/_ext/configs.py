# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""An index of the configs, and the pages that lie beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mmfakd.messages import markdown

from .documents import with_links_from

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = REPOSITORY / 'configs' / 'fakd'
INTRODUCTION = """\
# Configs

Every config that comes with mmfakd. Its name alone is enough, in any folder:

```bash
mmfakd train fakd_review_r18w32_r18w4_1xb50_digits
mmfakd configs copy fakd_review_r56_r20_1xb64_cifar100 -o mine.py
```

Scores are those that were measured in this project or, where no seeds are named, what
others publish for their weights. Without a score, the config has been built and tried,
and not trained. Weights with a size are published: [model zoo](../../model_zoo.md).
"""


def pages() -> dict[str, str]:
    """Write the index, and a page for each folder.

    Returns:
        dict[str, str]: File name -> text.
    """
    texts, lines = {}, [INTRODUCTION]
    names = sorted(file.parent.name for file in FOLDER.glob('*/metafile.yml'))
    for name in names:
        readme = FOLDER / name / 'README.md'
        text = with_links_from(readme, f'configs/{name}.md')
        texts[f'{name}.md'] = text
        title = text.partition('\n')[0].removeprefix('# ')
        models = yaml.safe_load((FOLDER / name / 'metafile.yml').read_text())['Models']
        header = ['config', 'student', 'teacher', 'score', 'weights']
        rows = [header, *map(_row, models)]
        lines += [f'## {title}', '', f'[How they were made]({name}.md).', '']
        lines += [*markdown(rows), '']
    lines += ['```{toctree}', ':hidden:', '', *names, '```', '']
    return texts | {'index.md': '\n'.join(lines)}


def _row(model: dict[str, Any]) -> list[str]:
    pair = model.get('Metadata') or {}
    sides = [
        _short((pair.get(side) or {}).get('Config')) for side in ('Student', 'Teacher')
    ]
    results = [result.get('Metrics') or {} for result in model.get('Results') or []]
    scores = [_score(metrics) for metrics in results]
    published = model.get('Published') or {}
    size = published.get('Size (MB)')
    weights = f'{size} MB' if size else ''
    return [f'`{model["Name"]}`', *sides, ', '.join(filter(None, scores)), weights]


def _score(metrics: dict[str, Any]) -> str:
    """The mean, in brackets its spread, and of how many seeds."""
    name, value = next(iter(metrics.items()), ('', ''))
    spread, seeds = metrics.get('Spread'), metrics.get('Seeds')
    text = f'{name} {value}' + (f' ({spread})' if spread is not None else '')
    return f'{text}, {seeds} seed{"s" if seeds > 1 else ""}' if seeds else text


def _short(config: str | None) -> str:
    """The network alone: the rest of the name is that of the config beside it."""
    return re.sub(r'_\d+xb.*', '', Path(config).stem) if config else ''
