"""The loop: phases of steps, each a global batch in micro batches, one optimizer step; evaluation, logs and states."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glimmer_export.exporter.stages import GlimmerModel
from glimmer_export.exporter.training.batch import Batch
from glimmer_export.exporter.training.loss import Losses, LossSettings, training_loss
from glimmer_export.exporter.training.optimizer import optimizer_from_settings, state_fault
from glimmer_export.exporter.training.processes import Processes
from glimmer_export.exporter.training.recipe import Phase, Recipe
from glimmer_export.exporter.training.sampling import micro_batches
from glimmer_export.exporter.training.sources import Source
from glimmer_export.runtime.contract import TrainingError

__all__ = ["Progress", "Report", "Trainer"]

SMOOTHING = 0.04


@dataclass(frozen=True)
class Report:
    """How the training stands: running loss and exact match, the best on the dev rows, and the seconds left at most."""

    phase: int
    num_phases: int
    step: int
    loss: float
    exact_match: float
    dev_exact_match: float | None
    fraction_done: float
    seconds_left: float


@dataclass
class Progress:
    """What a training has done: `step` counts those of the phase, `steps` all of them."""

    phase: int = 0
    step: int = 0
    steps: int = 0
    work: float = 0.0
    seconds: float = 0.0
    loss: float = 0.0
    exact_match: float = 0.0
    best: float = -1.0
    best_step: int = 0


class Trainer:
    """A training as a recipe has it; `state` and `restore` carry it over an interruption, to the last bit.

    Randomness is drawn anew for each micro batch from the seed, the step and the micro batch's number: neither how
    often a training was interrupted nor how many processes share a batch makes a difference.
    """

    def __init__(
        self, model: GlimmerModel, recipe: Recipe, source: Source, processes: Processes, *, seed: int
    ) -> None:
        self.model, self.recipe, self.seed = model, recipe, seed
        self.progress = Progress()
        self._source, self._processes = source, processes
        self._schedule = recipe.schedule()
        self._settings = LossSettings(
            recipe.ranking_weight, recipe.temperature, recipe.divergence, recipe.likelihood, recipe.likelihood_rows
        )
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = optimizer_from_settings(recipe.optimizer, self._parameters)
        self._loss = _Forward(model, self._settings)
        self._forward = processes.wrap(self._loss)
        self._learned: tuple[Batch, int | None] | None = None
        if (least := min(phase.batch_size or 0 for phase in self._schedule)) < processes.size:
            raise TrainingError(
                "training", expected=f"a row at least of each batch for each of {processes.size} processes",
                found=f"a batch_size of {least}", fix="raise batch_size, or start fewer processes",
            )

    def run(
        self, report: Callable[[Report, dict[str, float]], None], evaluate: Callable[[], float | None],
        save: Callable[[], None],
    ) -> None:
        """Train to the end.

        `report` is called after each step; `evaluate` gives the exact match on the dev rows, None if there are none,
        and `save` keeps the state, both after as many steps as the recipe says; the state is kept at the end too.
        Raises TrainingError for a loss that is not finite, before the step, and for weights that give none, before they
        are kept.
        """
        recipe = self.recipe
        while not self.is_done():
            started = time.perf_counter()
            figures = self._step()
            self.progress.seconds += time.perf_counter() - started
            report(self._report(), figures)
            self._end_phase()
            ended, steps = self.is_done(), self.progress.steps
            saves = ended or steps % recipe.save_every == 0
            # The last weights are graded when they are written, and before only if they may be the best.
            evaluates = (ended and recipe.keep == "best") or steps % recipe.evaluate_every == 0
            if (evaluates or saves) and not self.is_sound():
                raise self._not_finite("weights that give none")
            if evaluates:
                self._evaluate(evaluate)
            if saves:
                save()

    def is_sound(self) -> bool:
        """Whether the weights are finite, and give a finite loss on what was learned last.

        A step can throw them far off, which no loss has told of yet. All processes ask this together.
        """
        sound = all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters())
        if sound and self._learned is not None:
            with torch.no_grad():
                losses: Losses = self._loss(*self._learned, self._autocast())
            sound = bool(torch.isfinite(losses.total(self._settings)))
        return sum(self._processes.all(int(not sound))) == 0

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": dict(vars(self.progress)),
            "source": self._source.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; raises ValueError, and changes nothing, if it is of another form."""
        weights, progress = state.get("model"), state.get("progress")
        mine = self.model.state_dict()
        if not isinstance(weights, dict) or {name: _shape(value) for name, value in weights.items()} != {
            name: _shape(value) for name, value in mine.items()
        }:
            raise ValueError("other names or shapes in its model")
        own = vars(self.progress)
        if not isinstance(progress, dict) or {name: type(value) for name, value in progress.items()} != {
            name: type(value) for name, value in own.items()
        }:
            raise ValueError("other names or types in its progress")
        if not 0 <= progress["phase"] <= len(self._schedule):
            raise ValueError(f"a phase {progress['phase']} of {len(self._schedule)}")
        if fault := state_fault(self.recipe.optimizer, self.optimizer, state.get("optimizer")):
            raise ValueError(fault)
        self._source.restore(state.get("source"))
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**progress)

    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.progress.phase == len(self._schedule)

    @property
    def phase(self) -> Phase:
        """The phase that the next step is of."""
        return self._schedule[self.progress.phase]

    def _step(self) -> dict[str, float]:
        """One optimizer step; its figures by their names."""
        phase, config = self.phase, self.model.config
        left = phase.steps - self.progress.step
        rows = self._source.draw(phase, left, phase.num_retrieved or config.num_retrieved)
        tokens = sum(map(self._source.num_tokens, rows))
        size = min(self.recipe.micro_batch_size or len(rows), len(rows) // self._processes.size)
        parts = micro_batches(rows, size, self._processes.rank, self._processes.size)
        rate = self._learning_rate()
        self.optimizer.zero_grad()
        sums = [0.0] * 4
        for index, part in enumerate(parts):
            self._seed(self._processes.rank + index * self._processes.size)
            batch = self._source.batch(part).to(self._processes.device)
            last = index == len(parts) - 1
            with nullcontext() if last else self._processes.without_sync(self._forward):
                losses: Losses = self._forward(batch, phase.num_selected, self._autocast())
                # A mean over processes is taken of the gradients, so that each gives its sum as many times.
                (losses.total(self._settings, tokens, len(rows)) * self._processes.size).backward()
            found = (losses.language_model, losses.ranking, losses.exact.sum(), losses.selected.sum())
            sums = [total + float(value.detach()) for total, value in zip(sums, found, strict=True)]
        language_model, ranking, exact, selected = self._processes.sums(sums)
        loss = language_model / tokens + self.recipe.ranking_weight * ranking / len(rows)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.recipe.optimizer.max_gradient_norm or math.inf)
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            raise self._not_finite(f"a loss of {loss} and a gradient of norm {float(norm)}")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self._learned = batch, phase.num_selected
        self._count(phase, loss, exact / len(rows))
        return {
            "loss": loss, "language_model": language_model / tokens, "ranking": ranking / len(rows),
            "exact_match": exact / len(rows), "gold_read": selected / len(rows), "gradient_norm": float(norm),
            "learning_rate": rate, "answer_tokens": tokens,
        }

    def _count(self, phase: Phase, loss: float, exact: float) -> None:
        progress = self.progress
        progress.step += 1
        progress.steps += 1
        progress.work += self._work(phase)
        weight = max(SMOOTHING, 1 / progress.step)
        progress.loss += weight * (loss - progress.loss)
        progress.exact_match += weight * (exact - progress.exact_match)

    def _end_phase(self) -> None:
        progress, phase = self.progress, self.phase
        # A world is used up before a phase is promoted out of it.
        whole = phase.world is None or progress.step % phase.world.steps == 0
        promoted = phase.promote_at is not None and progress.exact_match >= phase.promote_at and whole
        if progress.step >= phase.steps or promoted:
            progress.phase, progress.step, progress.exact_match = progress.phase + 1, 0, 0.0

    def _evaluate(self, evaluate: Callable[[], float | None]) -> None:
        found = evaluate()
        if found is not None and found > self.progress.best:
            self.progress.best, self.progress.best_step = found, self.progress.steps

    def _learning_rate(self) -> float:
        phase, index = self.phase, self.progress.phase
        rate = phase.learning_rate or 0.0
        if phase.ramp == "constant":
            return rate
        previous = (self._schedule[index - 1].learning_rate or 0.0) if index else 0.0
        return previous + (rate - previous) * (self.progress.step + 1) / phase.steps

    def _seed(self, micro_batch: int) -> None:
        text = f"{self.seed} {self.progress.steps} {micro_batch}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))

    def _autocast(self) -> bool:
        if self.recipe.precision != "auto":
            return self.recipe.precision == "bfloat16"
        if self._processes.device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        return bool(torch.cpu.get_capabilities().get("avx512_bf16"))

    def _not_finite(self, found: str) -> TrainingError:
        return TrainingError(
            f"training, after step {self.progress.steps}", expected="a finite loss and gradient", found=found,
            fix="lower learning_rate, or train in float32 (--set precision=float32); the training's folder has the "
            "last good weights as a checkpoint, `last`, to begin with",
        )

    def _work(self, phase: Phase) -> float:
        """Cost of a step, in units that only compare phases: a question costs half a passage."""
        return (phase.batch_size or 0) * (0.5 + (phase.num_retrieved or self.model.config.num_retrieved))

    def _report(self) -> Report:
        progress, schedule = self.progress, self._schedule
        total = sum(self._work(each) * each.steps for each in schedule)
        left = sum(self._work(each) * each.steps for each in schedule[progress.phase :])
        left -= self._work(self.phase) * progress.step
        return Report(
            phase=progress.phase, num_phases=len(schedule), step=progress.steps,
            loss=progress.loss, exact_match=progress.exact_match,
            dev_exact_match=None if progress.best < 0 else progress.best, fraction_done=1 - left / total,
            seconds_left=progress.seconds / progress.work * left,
        )


class _Forward(nn.Module):
    """The loss as a module's forward, which is what a wrapper for several processes looks after."""

    def __init__(self, model: GlimmerModel, settings: LossSettings) -> None:
        super().__init__()
        self.model, self._settings = model, settings

    def forward(self, batch: Batch, num_selected: int | None, autocast: bool) -> Losses:  # noqa: FBT001
        """The batch's losses, by a model in BF16 autocast if `autocast`."""
        with torch.autocast(batch.labels.device.type, dtype=torch.bfloat16, enabled=autocast):
            return training_loss(self.model, batch, self._settings, num_selected)


def _shape(value: object) -> object:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value)
