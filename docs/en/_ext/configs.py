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

Scores are those that were measured in this project; where there is none, the config has
been built and tried, and not trained. The page of each folder says how.
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
        rows = [['config', 'student', 'teacher', 'score'], *map(_row, models)]
        lines += [f'## {title}', '', f'[How they were made]({name}.md).', '']
        lines += [*markdown(rows), '']
    lines += ['```{toctree}', ':hidden:', '', *names, '```', '']
    return texts | {'index.md': '\n'.join(lines)}


def _row(model: dict[str, Any]) -> list[str]:
    pair = model.get('Metadata') or {}
    sides = [
        _short((pair.get(side) or {}).get('Config')) for side in ('Student', 'Teacher')
    ]
    scores = [
        f'{metric} {value}'
        for result in model.get('Results') or []
        for metric, value in (result.get('Metrics') or {}).items()
    ]
    return [f'`{model["Name"]}`', *sides, ', '.join(scores)]


def _short(config: str | None) -> str:
    """The network alone: the rest of the name is that of the config beside it."""
    return re.sub(r'_\d+xb.*', '', Path(config).stem) if config else ''
