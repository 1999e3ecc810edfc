# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""mmrazor's loop that scores the teacher, too, with one that has its own input."""

from __future__ import annotations

import sys
from functools import wraps
from types import SimpleNamespace
from typing import Any

from .import_hook import when_imported

_LOOPS = 'mmrazor.engine.runner.distill_val_loop'


def score_teachers_as_distilled() -> None:
    """Let ``SingleTeacherDistillValLoop`` score the teacher of a ``FeatureDistill``.

    mmrazor 1.0.0, its last release, puts the student's data preprocessor into the
    teacher, whose own is lost then, and whose batches are normalised for the student:
    https://github.com/open-mmlab/mmrazor/blob/main/mmrazor/engine/runner/distill_val_loop.py
    With this shim the teacher of a model that has a ``teacher_val_step`` keeps its
    own, and predicts by that. Other models are treated as before.

    Besides, the loop says twice that a validation begins, and once that it has ended.
    ``EMAHook`` changes weights at each, so training went on with the averaged ones.
    The second time is left out, whatever the model.
    """
    when_imported(_LOOPS, _mend)


def _mend() -> None:
    loop = sys.modules[_LOOPS].SingleTeacherDistillValLoop
    init, run = loop.__init__, loop.run
    if hasattr(init, '__wrapped__'):
        return

    @wraps(init)
    def mended(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        from mmengine.model import is_model_wrapper

        wrapped = is_model_wrapper(runner.model)
        model = runner.model.module if wrapped else runner.model
        if not hasattr(model, 'teacher_val_step'):
            init(self, runner, *args, **kwargs)
            return
        own = model.teacher.data_preprocessor
        init(self, runner, *args, **kwargs)
        model.teacher.data_preprocessor = own
        # The loop asks nothing else of it.
        self.teacher = SimpleNamespace(val_step=model.teacher_val_step)

    @wraps(run)
    def balanced(self: Any) -> None:
        call_hook = self.runner.call_hook
        begun = False

        def call_once(name: str, **kwargs: Any) -> None:
            nonlocal begun
            if name == 'before_val_epoch':
                if begun:
                    return
                begun = True
            call_hook(name, **kwargs)

        own = vars(self.runner).get('call_hook')
        self.runner.call_hook = call_once
        try:
            run(self)
        finally:
            del self.runner.call_hook
            if own is not None:
                self.runner.call_hook = own

    loop.__init__, loop.run = mended, balanced
