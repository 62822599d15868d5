"""Worlds that are generated for training, by their names: rows without end, so that no fact is learned by heart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.demo.cloze import cloze_start, generate_cloze
from glimmer_export.exporter.demo.generator import demo_start, hard_start
from glimmer_export.exporter.demo.hard_world import generate_hard_split
from glimmer_export.exporter.demo.world import World, generate_split
from glimmer_export.runtime.contract import OptionError

__all__ = ["Generator", "generate", "generator_named", "register_generator"]


MakeWorld = Callable[..., World]
"""(split, number of questions, seed, **options) -> a world; raises TypeError or ValueError for its options."""


@dataclass(frozen=True)
class Generator:
    """A world by its name.

    `start(architecture)` gives the shape and the tokenizer.json of a model that is to learn it from random weights.
    """

    name: str
    world: MakeWorld
    start: Callable[[str], tuple[CheckpointConfig, bytes]]


BUILT_IN = (
    Generator("demo", generate_split, demo_start), Generator("demo-cloze", generate_cloze, cloze_start),
    Generator("hard", generate_hard_split, hard_start),
)
GENERATORS = {generator.name: generator for generator in BUILT_IN}


def register_generator(generator: Generator) -> None:
    """Make a generator known to recipes; raises ValueError if there is one of that name."""
    if generator.name in GENERATORS:
        raise ValueError(f"there is a generator {generator.name!r} already")
    GENERATORS[generator.name] = generator


def generator_named(name: str) -> Generator:
    """The generator of that name; raises OptionError if there is none."""
    if name not in GENERATORS:
        raise OptionError(
            f"generator {name!r}", expected=f"one of {', '.join(sorted(GENERATORS))}", found="none of that name",
            fix="correct the recipe, or register it with register_generator",
        )
    return GENERATORS[name]


def generate(name: str, split: str, num_questions: int, seed: int, options: dict[str, Any]) -> World:
    """A world of a split, `train` or `test`; raises OptionError for a generator or an option that there is not."""
    made = generator_named(name).world
    try:
        return made(split, num_questions, seed, **options)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"generator {name!r} with {options}", expected="options that it has", found=str(error),
            fix="correct the recipe's world.options",
        ) from None
