# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Looks at the first step of training and judges whether it teaches."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.model import BaseModel
from mmrazor.models.distillers import ConfigurableDistiller
from torch import Tensor

from mmfakd.models.distillers.any_distiller import compared_levels, is_level
from mmfakd.models.distillers.loss_gradients import (
    TOTAL,
    GradientsNotMeasured,
    LossGradient,
    loss_gradients,
    uses_half,
)

from .check_unused import tell_sides
from .first_step import NOTHING_DISTILLED, FirstStep
from .idle_parameters import reached_parameters
from .input_statistics import input_statistics, judge_input, judge_told
from .judge_balance import judge_balance
from .judge_losses import judge_losses
from .learned_targets import learned_targets
from .level_report import LevelReport
from .loss_weights import loss_weights
from .random_features import random_features
from .recorded_features import (
    Recorded,
    RecordedPair,
    describe_void,
    forgets_images,
    recorded_features,
    several_calls,
)
from .teacher import Teacher
from .why_unreached import why_unreached

_CLOSING = 'Nothing has been trained. `report=False` of the model skips this check.'


class FirstLook:
    """What the first step of a training says, before any weight has moved.

    It is taken in three parts: of the teacher alone, of the recorded features, and of
    the losses. All processes take it together, and say the same.

    Args:
        student (BaseModel): The student.
        teacher (Teacher): The teacher.
        distiller (ConfigurableDistiller): The distiller.
        learning (Collection[int]): Identities of the student's parameters that learn.
        trainable (bool): Whether the student is to learn; if it is not, its levels
            need not reach it.
        still (Mapping[str, Tensor]): Parameters of the distiller that the optimizer
            leaves as they are, by name.
    """

    def __init__(
        self,
        student: BaseModel,
        teacher: Teacher,
        distiller: ConfigurableDistiller,
        learning: Collection[int],
        trainable: bool,
        still: Mapping[str, Tensor],
    ) -> None:
        self.student, self.teacher, self.distiller = student, teacher, distiller
        self.still = still
        self.trainable = trainable
        self.learning = learning
        self.weights = [p for p in student.parameters() if id(p) in learning]
        self.step = FirstStep([], sum(p.numel() for p in self.weights))

    def at_teacher(self, inputs: Tensor, data_samples: list | None) -> None:
        """Look whether the teacher says the same of a batch twice.

        Args:
            inputs (Tensor): The student's batch (N, C, H, W).
            data_samples (list, optional): Its data samples.
        """
        batch = inputs, data_samples
        layers = random_features(self.teacher, self.distiller, *batch)
        if found := _agreed(dict.fromkeys(layers, 'random')):
            self.step.warnings.append(
                f'The teacher is not deterministic: what {", ".join(found)} yields is '
                'something else each time it sees the same images, as where patches '
                'are masked at random. The student learns the noise as well. Give '
                "`teacher_mode='neck'` (its `extract_feat`), or switch off what is "
                'random in it.'
            )

    def at_features(
        self, inputs: Tensor, data_samples: list | None, run: Callable[[], Any]
    ) -> None:
        """Look at the batch and at what has been recorded.

        Args:
            inputs (Tensor): The student's batch (N, C, H, W).
            data_samples (list, optional): Its data samples.
            run (Callable): Runs the student once more, to see where a graph ends.

        Raises:
            ValueError: If a level reaches nothing of the student, or the teacher's
                feature is void.
        """
        pairs = recorded_features(self.distiller)
        self.step.levels = self._rows(pairs)
        self._look_at_inputs(inputs, data_samples)
        self.step.warnings += several_calls(self.distiller)
        active = {row.name for row in self.step.levels if row.weight != 0}
        batch = len(inputs)
        own = self.step.inputs.get('student', {}).pop('differs', False)
        # Equal images, as blank ones, are no reason to leave out what others exchange.
        differs = any(all_gather_object(own))
        void = {
            (name, feature.layer): reason
            for name, pair in pairs.items()
            for feature in pair.teacher
            for reason in [self._void(feature, batch, differs)]
            if reason
        }
        for (name, layer), reason in _agreed(void).items():
            # A weight of 0 times what is not finite is not finite, either.
            counts = name in active or 'not finite' in reason
            self._tell(counts, self._blame_teacher(name, layer, reason))
        if differs:
            self._doubt_teacher(pairs, batch, own)
        broken = {
            f.layer: str(describe_void(f.tensor, batch, False))
            for pair in pairs.values()
            for f in pair.student
            if not _is_finite(f.tensor)
        }
        for layer, reason in _agreed(broken).items():
            self.step.warnings.append(
                f"The student's feature {layer!r} {reason}, before it has learned "
                'anything: look at its weights, at the input and at half precision.'
            )
        for name, pair in pairs.items():
            self._check_path(name, pair, name in active, run)
        self._refuse()

    def at_losses(
        self, own: Mapping[str, Any], losses: Mapping[str, Any], warmup: Any = None
    ) -> FirstStep:
        """Look at the losses and their gradients.

        Args:
            own (Mapping): The student's own losses; none where they do not count.
            losses (Mapping): Distillation losses at full weight.
            warmup (Tensor, optional): The factor that they have been scaled by.

        Returns:
            FirstStep: The report.

        Raises:
            ValueError: If a loss reaches nothing of the student, or is not finite.
        """
        step = self.step
        step.warmup = 1.0 if warmup is None else round(float(warmup), 6)
        ours, scalars = _both_sides(own, losses)
        self._fill(ours, scalars)
        for row in step.levels:
            if row.reached == 0 and self.trainable:
                self._tell(row.weight != 0, self._blame_loss(row))
        judge_losses(step, self._in_float16())
        self._refuse()
        self._note(ours is not None)
        if self.trainable:
            step.notes += learned_targets(self.distiller, scalars)
        judge_balance(step, self.distiller, lambda f: self._again(ours, scalars, f))
        return step

    def _blame_loss(self, row: LevelReport) -> str:
        """Say why a loss reaches nothing of the student."""
        levels = compared_levels(self.distiller).get(row.name, ())
        if levels and not any(level.from_student for level in levels):
            return (
                f'{row.title} takes nothing of the student: all its entries in '
                '`loss_forward_mappings` say from_student=False. Give what comes from '
                'the student from_student=True.'
            )
        return (
            f'{row.title} reaches no weight of the student, although its feature does: '
            'the connector or the loss detaches it.'
        )

    def measure(self, own: Mapping[str, Any], losses: Mapping[str, Any]) -> FirstStep:
        """Measure losses and gradients in any later step, and judge nothing.

        Args:
            own (Mapping): As in :meth:`at_losses`.
            losses (Mapping): Likewise.

        Returns:
            FirstStep: The numbers.
        """
        self.step.levels = self._rows(recorded_features(self.distiller))
        self._fill(*_both_sides(own, losses))
        return self.step

    def _fill(self, own: Tensor | None, scalars: Mapping[str, Tensor]) -> None:
        step = self.step
        known = {row.name: row for row in step.levels}
        for name in scalars:
            if name not in known:
                known[name] = LevelReport(name, [], [])
        step.levels = [row for row in known.values() if row.name in scalars]
        step.total = LevelReport(TOTAL, [], [])
        self._measure(own, scalars)

    def _rows(self, pairs: Mapping[str, RecordedPair]) -> list[LevelReport]:
        levels = [name for name in pairs if is_level(name)]
        weights = loss_weights(self.distiller, list(pairs), len(levels))
        return [
            LevelReport(
                name,
                [(f.layer, tuple(f.tensor.shape)) for f in pair.student],
                [(f.layer, tuple(f.tensor.shape)) for f in pair.teacher],
                *weights[name],
            )
            for name, pair in pairs.items()
        ]

    def _look_at_inputs(self, inputs: Tensor, data_samples: list | None) -> None:
        batches = [('student', inputs, self.student)]
        if isinstance(inputs, Tensor) and not self.teacher.input.is_identity:
            theirs = self.teacher.input(inputs, data_samples)
            batches.append(('teacher', theirs, self.teacher.model))
        elif not self.teacher.told_input:
            batches.append(('teacher', inputs, self.teacher.model))
        said: dict[str, str] = {}
        for role, batch, model in batches:
            found = input_statistics(batch, data_samples)
            if found is None:
                continue
            self.step.inputs[role] = found.as_dict()
            if role == 'student':
                self.step.inputs[role]['differs'] = found.differs
            told = self.teacher.input.told
            text = ''
            # What the teacher was told to get is not guessed at: numbers speak.
            if role == 'student' or not self.teacher.told_input:
                text = judge_input(batch, data_samples, model, role)
            elif told is not None:
                text = judge_told(batch, data_samples, *told)
            if text:
                said[role] = text
        said = _agreed(said)
        if len(said) == 2 and self.teacher.input.is_identity:
            said.pop('teacher')
        self.step.warnings += [f'{text[0].upper()}{text[1:]}' for text in said.values()]

    def _void(self, feature: Recorded, batch: int, differs: bool) -> str:
        if feature.is_weight:
            finite = _is_finite(feature.tensor)
            return '' if finite else 'is not finite'
        return describe_void(feature.tensor, batch, differs)

    def _doubt_teacher(
        self, pairs: Mapping[str, RecordedPair], batch: int, differs: bool
    ) -> None:
        # Who has equal images cannot tell, and does not object.
        reason = 'is the same for all images but for rounding, although these differ'
        doubtful = {
            (name, feature.layer): reason
            for name, pair in pairs.items()
            for feature in pair.teacher
            if not feature.is_weight
            and (forgets_images(feature.tensor, batch) or not differs)
        }
        for (name, layer), said in _agreed(doubtful).items():
            self.step.warnings.append(self._blame_teacher(name, layer, said))

    def _blame_teacher(self, name: str, layer: str, reason: str) -> str:
        source = self.teacher.source or 'given with the built model'
        if not self.teacher.has_weights:
            source = 'none, it is at random'
        half = any(
            f.tensor.dtype in (torch.float16, torch.bfloat16)
            for pair in recorded_features(self.distiller).values()
            for f in pair.teacher
            if f.layer == layer
        )
        causes = 'a file of another model or a damaged one, or a layer that is dead'
        if 'finite' in reason:
            causes = 'a damaged file, or weights that diverged'
            if half:
                causes += ', or values beyond the range of half precision'
        return (
            f"{name}: the teacher's feature {layer!r} {reason}, so there is nothing to "
            f'learn from it. Its weights are: {source}. Possible causes: {causes}. '
            '`mmfakd check-teacher` scores the teacher.'
        )

    def _check_path(
        self, name: str, pair: RecordedPair, active: bool, run: Callable[[], Any]
    ) -> None:
        """Tell if what the student gives to a level has no way back."""
        features = pair.student
        if not self.trainable or not features or self._learns(features):
            return
        feature = features[0]
        if not active:
            # The student runs again only where the training ends here.
            self.step.notes.append(
                f'{name} reaches no weight of the student through {feature.layer!r}; '
                'its weight is 0, so nothing is lost.'
            )
            return
        why = why_unreached(
            self.student, feature.source, feature.tensor, self.learning, run
        )
        self.step.errors.append(
            f'{name} cannot teach: its gradient reaches no weight of the student, as '
            f'the layer {feature.layer!r} is cut off: {why}'
        )

    def _learns(self, features: list[Recorded]) -> bool:
        tensors = [f.tensor for f in features if f.tensor.requires_grad]
        if any(id(tensor) in self.learning for tensor in tensors):
            return True
        return any(id(p) in self.learning for p in reached_parameters(tensors))

    def _measure(self, own: Tensor | None, scalars: Mapping[str, Tensor]) -> None:
        step = self.step
        assert step.total is not None
        rows = [*step.levels, step.total]
        found: dict[str, LossGradient] = {}
        if self.trainable and scalars:
            try:
                found = self._gradients(own, scalars)
            except GradientsNotMeasured as error:
                step.unmeasured = str(error)
        elif not self.trainable:
            step.unmeasured = 'the student does not learn'
        values = dict(scalars)
        values[TOTAL] = _total(scalars) if scalars else torch.zeros(())
        numbers = {row.name: [float(values[row.name].detach())] for row in rows}
        for row in rows:
            one = found.get(row.name)
            if one is not None:
                numbers[row.name] += [float(one.norm), float(one.own_norm)]
                row.reached = one.reached
            elif self.trainable:
                row.reached = self._reached(values[row.name])
        ours = math.nan if own is None else float(own.detach())
        gathered = all_gather_object((ours, numbers, step.unmeasured))
        step.own_loss = _mean([value for value, _, _ in gathered])
        # Where one lacks memory for it, none judges: judging measures once more.
        step.unmeasured = next((why for _, _, why in gathered if why), '')
        for row in rows:
            columns = zip(*(theirs[row.name] for _, theirs, _ in gathered))
            keys = ('loss', 'norm', 'own_norm')
            for key, column in zip(keys, columns):
                setattr(row, key, _mean(list(column)))
        whole = step.total.loss + (0 if own is None else step.own_loss)
        for row in rows:
            row.share = row.loss / whole if whole else math.nan

    def _gradients(
        self, own: Tensor | None, losses: Mapping[str, Tensor]
    ) -> dict[str, LossGradient]:
        modules = [self.student, self.distiller.connectors]
        return loss_gradients(own, losses, self.weights, modules)

    def _again(
        self, own: Tensor | None, scalars: Mapping[str, Tensor], factors: dict
    ) -> float:
        """Measure the ratio of all losses together, scaled by factors."""
        scaled = {name: factors.get(name, 1.0) * x for name, x in scalars.items()}
        found = self._gradients(own, {'scaled': _total(scaled)})['scaled']
        return _mean(all_gather_object(found.ratio))

    def _reached(self, loss: Tensor) -> int:
        found = {id(p): p.numel() for p in reached_parameters([loss])}
        return sum(count for key, count in found.items() if key in self.learning)

    def _in_float16(self) -> bool:
        """Whether the student runs in float16, be autocast over by now or not."""
        pairs = recorded_features(self.distiller).values()
        features = [f.tensor for pair in pairs for f in pair.student]
        return uses_half([*self.weights, *features])

    def _note(self, has_own: bool) -> None:
        step = self.step
        step.warnings += tell_sides(self.distiller)
        idle = [row.name for row in step.levels if row.weight == 0]
        if len(idle) == len(step.levels):
            step.warnings.append(
                f'{NOTHING_DISTILLED}: no loss has a weight above 0, so the student '
                'learns as without a teacher.'
            )
        elif idle:
            step.notes.append(f'weight 0, nothing is distilled by: {", ".join(idle)}.')
        if not self.trainable:
            step.notes.append(
                'the student does not learn (student_trainable=False): the connectors '
                'alone do, so no loss reaches it.'
            )
        elif not has_own:
            step.notes.append(
                'the student has no loss of its own here, so there is nothing to '
                'compare the gradients with: distillation alone decides.'
            )
        if self.still:
            count = sum(p.numel() for p in self.still.values())
            name = next(iter(self.still))
            step.warnings.append(
                f'The optimizer does not move {count:,} weights of the distiller, '
                f'{name!r} and {len(self.still) - 1} more (`lr_mult=0`, a learning '
                'rate of 0, or they are left out): they stay as they are, in general '
                'at random, and so does what the student imitates.'
            )
        if not self.teacher.has_weights:
            step.warnings.insert(
                0,
                'THE TEACHER IS AT RANDOM: it has no weights, so what is distilled is '
                'noise, and the numbers here are not those of a trained one. Give '
                '`teacher_ckpt` (`--teacher-ckpt`).',
            )
        elif self.teacher.unfilled:
            step.warnings.insert(0, self.teacher.partly_at_random)

    def _tell(self, active: bool, text: str) -> None:
        if active:
            self.step.errors.append(text)
        else:
            self.step.notes.append(f'{text} Its weight is 0, so nothing is lost.')

    def _refuse(self) -> None:
        if not self.step.errors:
            return
        self.step.log()
        raise ValueError('\n'.join([*self.step.errors, _CLOSING]))


def _agreed(said: dict) -> dict:
    """What processes found: what is not finite for one, else what is so for all."""
    every = all_gather_object(said)
    return {
        key: text
        for one in every
        for key, text in one.items()
        if 'not finite' in text or all(key in other for other in every)
    }


def _both_sides(
    own: Mapping[str, Any], losses: Mapping[str, Any]
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The student's own loss, where it has one, and the others by name."""
    mine = list(_scalars(own).values())
    return (sum(mine[1:], mine[0]) if mine else None), _scalars(losses)


def _scalars(losses: Mapping[str, Any]) -> dict[str, Tensor]:
    """Reduce losses as MMEngine does; what is no loss by its name is left out."""
    found = {}
    for name, value in losses.items():
        parts = [value] if isinstance(value, Tensor) else list(value or ())
        if 'loss' in name and parts:
            found[name] = _total({str(i): part.mean() for i, part in enumerate(parts)})
    return found


def _total(losses: Mapping[str, Tensor]) -> Tensor:
    values = list(losses.values())
    return sum(values[1:], values[0])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())
