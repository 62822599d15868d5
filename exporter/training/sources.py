"""Where the rows of a step come from: files, or a world that a generator makes anew every so many steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from glimmer_export.exporter.training.batch import Batch
from glimmer_export.exporter.training.collator import Collator
from glimmer_export.exporter.training.generators import generate
from glimmer_export.exporter.training.recipe import Phase, Recipe, World
from glimmer_export.exporter.training.rows import rows_from_world
from glimmer_export.exporter.training.sampling import Draw, Sampler
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.runtime.contract import TrainingError

__all__ = ["FileSource", "Source", "WorldSource", "sources_from_recipe"]

SEEDS_APART = 1_000_003


class Source(Protocol):
    """Rows to train on; what comes next follows from the seed and from what was drawn before."""

    def draw(self, phase: Phase, steps_left: int, num_retrieved: int) -> list[Draw]:
        """The rows of the next step of a phase that has so many left, each with at most k passages."""
        ...

    def num_tokens(self, draw: Draw) -> int:
        """Tokens of a row's answer."""
        ...

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Some of the rows that were drawn last, as tensors."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain data, from which `restore` goes on with the same rows."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from a state; raises ValueError, and changes nothing, for one of another form."""
        ...


class FileSource:
    """Rows of files."""

    def __init__(self, collator: Collator, recipe: Recipe, *, seed: int) -> None:
        self._collator = collator
        self._sampler = Sampler(collator.rows, seed=seed, gold=recipe.gold, distractors=recipe.distractors)

    def require(self, tasks: Iterable[str]) -> None:
        """Raise TrainingError for a task without rows."""
        self._sampler.require(tasks)

    def draw(self, phase: Phase, steps_left: int, num_retrieved: int) -> list[Draw]:  # noqa: ARG002 - they never end
        """Of the phase's tasks; raises TrainingError for one without rows."""
        return self._sampler.draw(phase.batch_size or 0, num_retrieved, phase.tasks)

    def num_tokens(self, draw: Draw) -> int:
        """Tokens of a row's answer."""
        return len(self._collator.rows.answer_ids(draw.row, draw.answer))

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """As tensors."""
        return self._collator.batch(draws)

    def state(self) -> dict[str, Any]:
        """The sampler's."""
        return self._sampler.state()

    def restore(self, state: Any) -> None:
        """To the sampler."""
        if not isinstance(state, dict):
            raise ValueError("no state of its rows")  # noqa: TRY004 - as every other form that is none
        self._sampler.restore(state)


class WorldSource:
    """Rows of generated worlds: each says other things of the same entities, and every question is asked once."""

    def __init__(self, text: RowText, recipe: Recipe, *, seed: int) -> None:
        self._text, self._recipe, self._seed = text, recipe, seed
        self._world, self._taken, self._steps = 0, 0, 0
        self._current: FileSource | None = None

    def draw(self, phase: Phase, steps_left: int, num_retrieved: int) -> list[Draw]:
        """Of the world at hand, or of the next one if that is used up. Raises OptionError for a generator's options."""
        assert phase.world is not None
        if self._taken == self._steps:
            self._world += self._steps > 0
            self._taken, self._steps = 0, min(phase.world.steps, steps_left)
            self._current = None
        if self._current is None:
            self._current = self._made(phase.world, self._steps * (phase.batch_size or 0))
            for _ in range(self._taken):
                self._current.draw(phase, steps_left, num_retrieved)
        self._taken += 1
        return self._current.draw(phase, steps_left, num_retrieved)

    def num_tokens(self, draw: Draw) -> int:
        """Tokens of a row's answer."""
        assert self._current is not None
        return self._current.num_tokens(draw)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """As tensors."""
        assert self._current is not None
        return self._current.batch(draws)

    def state(self) -> dict[str, Any]:
        """Which world it is, of how many steps, and how many of them were taken."""
        return {"world": self._world, "steps": self._steps, "taken": self._taken}

    def restore(self, state: Any) -> None:
        """The world itself is made again when it is asked for."""
        found: list[Any] = [state.get(name) for name in ("world", "steps", "taken")] if isinstance(state, dict) else []
        if len(found) != 3 or not all(type(number) is int and number >= 0 for number in found):
            raise ValueError("no state of its worlds")
        self._world, self._steps, self._taken = found
        self._current = None

    def _made(self, world: World, num_questions: int) -> FileSource:
        seed = self._seed * SEEDS_APART + self._world
        made = generate(world.generator, "train", num_questions, seed, world.options)
        return FileSource(Collator(rows_from_world(made, self._text, task=world.generator)), self._recipe, seed=seed)


class MixedSource:
    """Files for the phases that name no world, worlds for the others."""

    def __init__(self, files: FileSource | None, worlds: WorldSource) -> None:
        self._files, self._worlds = files, worlds
        self._last: FileSource | WorldSource = worlds

    def draw(self, phase: Phase, steps_left: int, num_retrieved: int) -> list[Draw]:
        """Of the phase's own; raises as that does."""
        if phase.world is None:
            assert self._files is not None
            self._last = self._files
        else:
            self._last = self._worlds
        return self._last.draw(phase, steps_left, num_retrieved)

    def num_tokens(self, draw: Draw) -> int:
        """Tokens of a row's answer."""
        return self._last.num_tokens(draw)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """As tensors."""
        return self._last.batch(draws)

    def state(self) -> dict[str, Any]:
        """Both."""
        return {"files": None if self._files is None else self._files.state(), "worlds": self._worlds.state()}

    def restore(self, state: Any) -> None:
        """Both."""
        if not isinstance(state, dict) or (state.get("files") is None) != (self._files is None):
            raise ValueError("other sources of rows")
        if self._files is not None:
            self._files.restore(state["files"])
        self._worlds.restore(state.get("worlds"))


def sources_from_recipe(recipe: Recipe, text: RowText, files: Collator | None, *, seed: int) -> Source:
    """What the recipe's phases draw from.

    Raises TrainingError for phases that want rows of files, or of a task, of which there are none, and OptionError for
    a generator or an option of it that there is not: no phase is the first to find out.
    """
    if files is None and any(phase.world is None for phase in recipe.schedule()):
        raise TrainingError(
            "training", expected="rows to train on, as the recipe's phases name no world", found="none",
            fix="name files: --train FILE",
        )
    for world in (phase.world for phase in recipe.schedule() if phase.world is not None):
        generate(world.generator, "train", 1, seed, world.options)
    source = None if files is None else FileSource(files, recipe, seed=seed)
    if source is not None:
        source.require(task for phase in recipe.schedule() if phase.world is None for task in phase.tasks or ())
    return MixedSource(source, WorldSource(text, recipe, seed=seed))
