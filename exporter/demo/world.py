"""The demo world: an encyclopedia generated from a seed, with the questions it answers.

An entity has a two-word name and one fact a relation of its kind. Its facts are spread over several passages, and each
passage is titled with the entity's name. Train and test share every word and no name: a name (i, j), its words' places
in their lists, belongs to the test split where i + j is a multiple of four, whatever the seed.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypedDict

from glimmer_export.exporter.demo.facts import Entity, ask, draw_value, prompts, state_fact
from glimmer_export.exporter.demo.relations import KINDS, Kind, Relation

__all__ = [
    "CHECKPOINT", "NUM_CONTEXT", "TASKS", "Passage", "Question", "Split", "World", "generate_split", "names_of_split",
    "withhold_gold", "write_world",
]  # fmt: skip

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The demo checkpoint, which travels with the package."""

Split = Literal["train", "test"]
TASKS = {"train": ("question", "slot", "claim"), "test": ("question", "slot")}
"""Task forms of each split, equally often.

A test asks only what its gold passage alone can answer. A false claim is refuted by finding it nowhere, so whether the
gold passage was selected says nothing there.
"""
NUM_CONTEXT = 10
TEST_NAMES_ONE_IN = 4
QUESTIONS_PER_ENTITY = 3
SMALLEST_GRID = 10
SIBLINGS = 2
NEAR_NAMES_ONE_IN = 3


class Passage(TypedDict):
    """One passage of the corpus: `id` is its place in the corpus, `title` the entity's name."""

    id: int
    title: str
    text: str


class Question(TypedDict):
    """One question; `ctx_ids` are distinct passages, the gold one anywhere among them."""

    qid: int
    task: str
    question: str
    answers: list[str]
    ctx_ids: list[int]
    gold_ids: list[int]


@dataclass(frozen=True)
class World:
    """A corpus, whose passage i has id i, and questions about it."""

    corpus: list[Passage]
    questions: list[Question]


def names_of_split(kind: Kind, split: Split) -> list[tuple[str, str]]:
    """Every name of `kind` that belongs to `split`; the two splits partition the names."""
    return [
        (first, last)
        for i, first in enumerate(kind.first)
        for j, last in enumerate(kind.last)
        if ((i + j) % TEST_NAMES_ONE_IN == 0) == (split == "test")
    ]


def generate_split(
    split: Split,
    num_questions: int,
    seed: int,
    facts_per_passage: int = 2,
    num_contexts: int = NUM_CONTEXT,
    tasks: Sequence[str] | None = None,
) -> World:
    """Generate `num_questions` questions of `split`, each with `num_contexts` passages (ten or more), and their corpus.

    `tasks` are the forms they have (None: the split's). Raises ValueError if the split has too few names for that many
    different questions.
    """
    rng = random.Random(f"{split} {seed}")
    tasks = tasks or TASKS[split]
    entities, corpus = _entities(rng, split, num_questions, facts_per_passage, num_contexts, len(tasks))
    neighbours = _Neighbours(entities, len(corpus))
    questions: list[Question] = []
    for qid, (entity, relation, task) in enumerate(islice(prompts(rng, entities, tasks), num_questions)):
        text, answer = ask(rng, task, entity, relation)
        gold = entity.passage_of[relation.name]
        context = [gold, *neighbours.distractors(rng, entity, relation, num_contexts)]
        rng.shuffle(context)
        questions.append(
            Question(qid=qid, task=task, question=text, answers=[answer], ctx_ids=context, gold_ids=[gold])
        )
    return World(corpus, questions)


def withhold_gold(world: World, seed: int) -> World:
    """The same questions without their gold passage, in whose place stands another that does not state the fact."""
    rng = random.Random(f"withheld {seed}")
    questions = []
    for question in world.questions:
        barred = {*question["ctx_ids"], *question["gold_ids"]}
        context = list(question["ctx_ids"])
        for gold in question["gold_ids"]:
            place = context.index(gold)
            while context[place] in barred:
                context[place] = rng.randrange(len(world.corpus))
        questions.append(Question({**question, "ctx_ids": context, "gold_ids": []}))
    return World(world.corpus, questions)


def write_world(directory: Path, world: World) -> None:
    """Write `corpus.jsonl` and `questions.jsonl`, one JSON object a line."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", world.corpus), ("questions", world.questions)):
        lines = [json.dumps(row) + "\n" for row in rows]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _entities(
    rng: random.Random, split: Split, num_questions: int, facts_per_passage: int, num_contexts: int, num_tasks: int
) -> tuple[list[Entity], list[Passage]]:
    names = {kind.name: names_of_split(kind, split) for kind in KINDS}
    available = sum(len(names[kind.name]) * len(kind.relations) * num_tasks for kind in KINDS)
    if num_questions > available:
        raise ValueError(f"the {split} split of the demo world has {available} different questions")
    wanted = max(num_contexts, -(-num_questions // (QUESTIONS_PER_ENTITY * len(KINDS))))
    entities: list[Entity] = []
    corpus: list[Passage] = []
    for kind in KINDS:
        grid = _name_grid(rng, kind, names[kind.name], wanted)
        entities += [_entity(rng, kind, name, facts_per_passage, corpus) for name in grid]
    return entities, corpus


def _name_grid(
    rng: random.Random, kind: Kind, names: list[tuple[str, str]], wanted: int
) -> list[tuple[str, str]]:
    """At least `wanted` names (or all) from few first and last words, so that many share one: near misses."""
    firsts, lasts = rng.sample(kind.first, len(kind.first)), rng.sample(kind.last, len(kind.last))
    size = SMALLEST_GRID
    while True:
        kept_firsts, kept_lasts = set(firsts[:size]), set(lasts[:size])
        kept = [(first, last) for first, last in names if first in kept_firsts and last in kept_lasts]
        if len(kept) >= wanted or len(kept) == len(names):
            return kept
        size += 1


def _entity(
    rng: random.Random, kind: Kind, name: tuple[str, str], facts_per_passage: int, corpus: list[Passage]
) -> Entity:
    entity = Entity(kind, name, {}, {})
    relations = rng.sample(kind.relations, len(kind.relations))
    for start in range(0, len(relations), facts_per_passage):
        sentences = []
        for place, relation in enumerate(relations[start : start + facts_per_passage]):
            value = draw_value(rng, relation, avoid=set(entity.values.values()))
            subject = entity.name if place == 0 else kind.later_subject.format(last=name[-1])
            sentences.append(state_fact(rng.choice(relation.sentences), subject, value))
            entity.values[relation.name] = value
            entity.passage_of[relation.name] = len(corpus)
        corpus.append(Passage(id=len(corpus), title=entity.name, text=" ".join(sentences)))
    return entity


class _Neighbours:
    """Finds the passages that nearly answer a question."""

    def __init__(self, entities: list[Entity], num_passages: int) -> None:
        self.num_passages = num_passages
        self.by_kind: dict[str, list[Entity]] = defaultdict(list)
        self.by_word: dict[tuple[str, str], list[Entity]] = defaultdict(list)
        for entity in entities:
            self.by_kind[entity.kind.name].append(entity)
            for word in entity.words:
                self.by_word[entity.kind.name, word].append(entity)

    def distractors(self, rng: random.Random, entity: Entity, relation: Relation, num_contexts: int) -> list[int]:
        """`num_contexts - 1` passages that do not state the fact.

        The same entity with other relations, entities that share a word of the name (a third, as far as there are) and
        entities that do not, both with the same relation, and one passage of any kind.
        """
        chosen = {entity.passage_of[relation.name]}
        siblings = sorted(set(entity.passage_of.values()) - chosen)
        chosen.update(rng.sample(siblings, min(SIBLINGS, len(siblings))))
        near = [
            other
            for word in entity.words
            for other in self.by_word[entity.kind.name, word]
            if other is not entity
        ]
        num_near = min(num_contexts // NEAR_NAMES_ONE_IN, len(near))
        chosen.update(other.passage_of[relation.name] for other in rng.sample(near, num_near))
        others = self.by_kind[entity.kind.name]
        while len(chosen) < num_contexts - 1:
            other = rng.choice(others)
            if other is not entity:
                chosen.add(other.passage_of[relation.name])
        while len(chosen) < num_contexts:
            passage = rng.randrange(self.num_passages)
            if passage not in entity.passage_of.values():
                chosen.add(passage)
        return sorted(chosen - {entity.passage_of[relation.name]})
