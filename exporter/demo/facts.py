"""What is known of an entity, told and asked: values drawn, sentences that state them, prompts that ask for them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from glimmer_export.exporter.demo.relations import Kind, Relation

__all__ = ["MISSING", "Entity", "ask", "draw_value", "prompts", "state_fact"]

MISSING = "[SEP]"
"""What stands in a text where words are missing."""


@dataclass(frozen=True)
class Entity:
    """An entity: its name, a value for each relation name, and the id of the passage that states it."""

    kind: Kind
    words: tuple[str, ...]
    values: dict[str, str]
    passage_of: dict[str, int]

    @property
    def name(self) -> str:
        """Its words."""
        return " ".join(self.words)


def draw_value(rng: random.Random, relation: Relation, avoid: set[str]) -> str:
    """A value of random words that is none of `avoid`."""
    while True:
        value = " ".join(rng.choice(choices) for choices in relation.values)
        if value not in avoid:
            return value


def state_fact(template: str, subject: str, value: str) -> str:
    """The sentence that says `value` of `subject`."""
    article = "an" if value[0] in "aeiou" else "a"
    text = template.replace("a {v}", f"{article} {{v}}").format(s=subject, v=value)
    return text[0].upper() + text[1:]


def prompts(
    rng: random.Random, entities: list[Entity], tasks: Sequence[str]
) -> Iterator[tuple[Entity, Relation, str]]:
    """Every fact in every task form, each entity once before any comes again, and no fact twice in one form."""
    plans = []
    for entity in entities:
        facts = [(relation, rng.randrange(len(tasks))) for relation in entity.kind.relations]
        rng.shuffle(facts)
        plans.append(
            [
                (entity, relation, tasks[(task + lap) % len(tasks)])
                for lap in range(len(tasks))
                for relation, task in facts
            ]
        )
    rng.shuffle(plans)
    return chain.from_iterable(zip(*plans, strict=True))


def ask(rng: random.Random, task: str, entity: Entity, relation: Relation) -> tuple[str, str]:
    """The text of a prompt in one of the task forms, and its answer."""
    value = entity.values[relation.name]
    if task == "question":
        return rng.choice(relation.questions).format(e=entity.name), value
    if task == "slot":
        return f"{entity.name} [SEP] {relation.name}", value
    if task == "cloze":
        return state_fact(rng.choice(relation.sentences), entity.name, MISSING), value
    supported = rng.random() < 0.5
    claimed = value if supported else draw_value(rng, relation, avoid={value})
    return state_fact(rng.choice(relation.sentences), entity.name, claimed), "SUPPORTS" if supported else "REFUTES"
