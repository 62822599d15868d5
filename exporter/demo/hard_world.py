"""The hard world: as the demo's, but every passage nearly answers every question, and no word alone tells which does.

Entities come in clans of four first, four middle and four last words: a name shares all but one word with nine others
of its clan, and a value about half its words with theirs. A passage states 3 to 5 facts. Train and test share every
word and no name: a name (i, j, l), its words' places in their lists, belongs to the test split if i + j + l is a
multiple of four, whatever the seed. All words of one place in a clan's names are equal modulo four, so a clan lies
wholly in one split.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

from glimmer_export.exporter.demo.facts import Entity, ask, prompts, state_fact
from glimmer_export.exporter.demo.hard_relations import HARD_KINDS
from glimmer_export.exporter.demo.relations import Kind, Relation
from glimmer_export.exporter.demo.world import TEST_NAMES_ONE_IN, Passage, Question, Split, World

__all__ = ["HARD_CHECKPOINT", "HARD_CONTEXT", "HARD_TASKS", "generate_hard_split", "split_of_name"]

HARD_CHECKPOINT = Path(__file__).parent / "hard_checkpoint"
"""The checkpoint that was trained on it, which travels with the package."""
HARD_CONTEXT = 25
HARD_TASKS = ("question", "slot")
FACTS = (3, 5)
CLAN_WORDS = 4
MOST_CLANS = 50
"""Of a kind: so many take one in 30 of the test split's names, and a new clan has none of these one time in 8."""
QUESTIONS_PER_ENTITY = 3
REDRAWN = 0.5
NEAREST = 0.375
NEAR = 0.25
"""Shares of the context: names that share all but one word, then names that share one."""
VALUE_WORDS = tuple(
    sorted({word for kind in HARD_KINDS for each in kind.relations for choices in each.values for word in choices})
)


def split_of_name(kind: Kind, words: Sequence[str]) -> Split:
    """The split that the three words of a name belong to."""
    lists = (kind.first, kind.middle, kind.last)
    places = sum(choices.index(word) for choices, word in zip(lists, words, strict=True))
    return "test" if places % TEST_NAMES_ONE_IN == 0 else "train"


def generate_hard_split(
    split: Split,
    num_questions: int,
    seed: int,
    facts_per_passage: tuple[int, int] = FACTS,
    num_contexts: int = HARD_CONTEXT,
    *,
    scrambled: bool = False,
) -> World:
    """Generate `num_questions` questions of `split`, each with `num_contexts` passages (ten or more), and their corpus.

    `facts_per_passage` are the least and the most; a passage with fewer is the last of its entity. `scrambled` values
    are as long, of the words of all values in any order: no word's kind tells its fact or its place, so that values
    can only be copied word by word from the sentence that is asked for. Raises ValueError for more different questions
    than there are.
    """
    names = MOST_CLANS * CLAN_WORDS**3
    available = sum(names * len(kind.relations) * len(HARD_TASKS) for kind in HARD_KINDS)
    if num_questions > available:
        raise ValueError(f"the hard world has {available} different questions")
    rng = random.Random(f"hard {split} {seed}")
    corpus: list[Passage] = []
    entities: list[Entity] = []
    neighbours: list[_Clan] = []
    wanted = min(names, -(-num_questions // (QUESTIONS_PER_ENTITY * len(HARD_KINDS))))
    for kind in HARD_KINDS:
        for clan in _clans(rng, _scrambled(kind) if scrambled else kind, split, wanted, facts_per_passage, corpus):
            neighbours.append(clan)
            entities += clan.entities
    clan_of = {entity.name: clan for clan in neighbours for entity in clan.entities}
    questions: list[Question] = []
    for qid, (entity, relation, task) in enumerate(islice(prompts(rng, entities, HARD_TASKS), num_questions)):
        text, answer = ask(rng, task, entity, relation)
        gold = entity.passage_of[relation.name]
        context = [gold, *clan_of[entity.name].distractors(rng, entity, relation, num_contexts, len(corpus))]
        rng.shuffle(context)
        questions.append(
            Question(qid=qid, task=task, question=text, answers=[answer], ctx_ids=context, gold_ids=[gold])
        )
    return World(corpus, questions)


@dataclass(frozen=True)
class _Clan:
    """Entities whose names are made of the same few words, and which resemble each other in their values."""

    entities: list[Entity]

    def distractors(
        self, rng: random.Random, entity: Entity, relation: Relation, num_contexts: int, num_passages: int
    ) -> list[int]:
        """`num_contexts - 1` passages that do not state the fact.

        The same entity with other relations; of the clan, with the same relation, entities whose names share all but
        one word, entities whose names share one, and any; and one passage of the whole corpus.
        """
        gold = entity.passage_of[relation.name]
        own = set(entity.passage_of.values())
        chosen = dict.fromkeys(sorted(own - {gold}))
        nearest, near, others = (
            [other for other in self.entities if _shared(other, entity) in shared] for shared in ((2,), (1,), (0, 1, 2))
        )
        for group, share in ((nearest, NEAREST), (near, NEAR), (others, 1.0)):
            count = min(round(num_contexts * share), len(group))
            for other in rng.sample(group, count):
                chosen.setdefault(other.passage_of[relation.name])
        kept = list(chosen)[: num_contexts - 2]
        while len(kept) < num_contexts - 1:
            passage = rng.randrange(num_passages)
            if passage not in own and passage not in kept:
                kept.append(passage)
        return kept


def _scrambled(kind: Kind) -> Kind:
    """The kind with any word in every place of its values."""
    relations = [replace(relation, values=(VALUE_WORDS,) * len(relation.values)) for relation in kind.relations]
    return replace(kind, relations=tuple(relations))


def _shared(one: Entity, other: Entity) -> int:
    """How many words two names share in the same place; three if it is one name."""
    return sum(left == right for left, right in zip(one.words, other.words, strict=True))


def _clans(
    rng: random.Random,
    kind: Kind,
    split: Split,
    wanted: int,
    facts_per_passage: tuple[int, int],
    corpus: list[Passage],
) -> list[_Clan]:
    """As many clans as give `wanted` entities, at least one; no name is in two."""
    clans: list[_Clan] = []
    names: set[tuple[str, ...]] = set()
    while len(names) < max(wanted, 1):
        clan = [name for name in _clan_names(rng, kind, split) if name not in names]
        if len(clan) < CLAN_WORDS**3:
            continue
        names.update(clan)
        base = {relation.name: _words(rng, relation) for relation in kind.relations}
        taken: set[str] = set()
        clans.append(_Clan([_entity(rng, kind, name, facts_per_passage, base, taken, corpus) for name in clan]))
    return clans


def _clan_names(rng: random.Random, kind: Kind, split: Split) -> list[tuple[str, ...]]:
    """Names of few words, nine sharing two words with each; first and middle words are never the same."""
    first, middle = rng.randrange(TEST_NAMES_ONE_IN), rng.randrange(TEST_NAMES_ONE_IN)
    rest = 0 if split == "test" else rng.randrange(1, TEST_NAMES_ONE_IN)
    last = (rest - first - middle) % TEST_NAMES_ONE_IN
    firsts = rng.sample(kind.first[first::TEST_NAMES_ONE_IN], CLAN_WORDS)
    free = [word for word in kind.middle[middle::TEST_NAMES_ONE_IN] if word not in firsts]
    middles, lasts = rng.sample(free, CLAN_WORDS), rng.sample(kind.last[last::TEST_NAMES_ONE_IN], CLAN_WORDS)
    return list(product(firsts, middles, lasts))


def _entity(
    rng: random.Random,
    kind: Kind,
    name: tuple[str, ...],
    facts_per_passage: tuple[int, int],
    base: dict[str, list[str]],
    taken: set[str],
    corpus: list[Passage],
) -> Entity:
    """An entity whose values keep about half the words of its clan's `base`, and are none of `taken`."""
    entity = Entity(kind, name, {}, {})
    relations = rng.sample(kind.relations, len(kind.relations))
    start = 0
    for size in _sizes(rng, len(relations), facts_per_passage):
        sentences = []
        for place, relation in enumerate(relations[start : start + size]):
            value = _value(rng, relation, base[relation.name], taken)
            taken.add(value)
            subject = entity.name if place == 0 else kind.later_subject.format(last=name[-1])
            sentences.append(state_fact(rng.choice(relation.sentences), subject, value))
            entity.values[relation.name] = value
            entity.passage_of[relation.name] = len(corpus)
        corpus.append(Passage(id=len(corpus), title=entity.name, text=" ".join(sentences)))
        start += size
    return entity


def _sizes(rng: random.Random, count: int, facts_per_passage: tuple[int, int]) -> list[int]:
    """`count` in parts from the least to the most; the last is smaller if it cannot be helped."""
    least, most = facts_per_passage
    sizes: list[int] = []
    while (left := count - sum(sizes)) > 0:
        fitting = [size for size in range(least, most + 1) if size == left or left - size >= least]
        sizes.append(rng.choice(fitting) if fitting else min(most, left))
    return sizes


def _words(rng: random.Random, relation: Relation) -> list[str]:
    return [rng.choice(choices) for choices in relation.values]


def _value(rng: random.Random, relation: Relation, base: list[str], taken: set[str]) -> str:
    while True:
        words = [
            new if rng.random() < REDRAWN else old
            for old, new in zip(base, _words(rng, relation), strict=True)
        ]
        if len(set(words)) == len(words) and (value := " ".join(words)) not in taken:
            return value
