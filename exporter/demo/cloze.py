"""What a T5 is pre-trained on in the demo's world: its texts alone, with words missing that stand in a passage."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from glimmer_export.exporter.demo.facts import MISSING
from glimmer_export.exporter.demo.generator import demo_start
from glimmer_export.exporter.demo.world import NUM_CONTEXT, Question, Split, World, generate_split

if TYPE_CHECKING:
    from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = ["cloze_start", "generate_cloze"]

MOST_WORDS = 3
T5_LAYERS = 6


def generate_cloze(
    split: Split,
    num_questions: int,
    seed: int,
    facts_per_passage: int = 2,
    num_contexts: int | None = None,
    missing: Literal["spans", "values"] = "spans",
) -> World:
    """Sentences of a demo world with words missing, each with a passage that has them among others.

    No question of the world is used. The sentence is asked with `[SEP]` where the words were, and they are the answer.
    `spans`: one to three words of a sentence of the passage; the other passages (by default none) are random ones.
    `values`: the value of the fact that the sentence states, in the passage's words for it or in others (salient spans,
    Guu et al. 2020, REALM, section 3.4); the other passages are those of a question, ten in all or more.
    Raises ValueError as `generate_split`, and for other words that could be missing.
    """
    if missing == "values":
        return generate_split(
            split, num_questions, seed, facts_per_passage, num_contexts or NUM_CONTEXT, tasks=("cloze",)
        )
    if missing != "spans":
        raise ValueError(f"missing is {missing!r}, neither spans nor values")
    rng = random.Random(f"cloze {split} {seed}")
    world = generate_split(split, num_questions, seed, facts_per_passage)
    num_contexts = num_contexts or 1
    questions = []
    for qid in range(num_questions):
        passage = rng.choice(world.corpus)
        words = rng.choice(passage["text"].removesuffix(".").split(". ")).split()
        count = rng.randint(1, min(MOST_WORDS, len(words)))
        start = rng.randrange(len(words) - count + 1)
        span = " ".join(words[start : start + count])
        asked = " ".join([*words[:start], MISSING, *words[start + count :], "."])
        others = rng.sample(range(len(world.corpus)), num_contexts)
        context = [passage["id"], *(other for other in others if other != passage["id"])][:num_contexts]
        rng.shuffle(context)
        gold = [passage["id"]]
        questions.append(
            Question(qid=qid, task="cloze", question=asked, answers=[span], ctx_ids=context, gold_ids=gold)
        )
    return replace(world, questions=questions)


def cloze_start(architecture: str) -> tuple[CheckpointConfig, bytes]:
    """A T5 of six encoder layers that reads one passage, and the demo's tokenizer.json; a `fid` alone is one.

    Raises CheckpointError for another architecture.
    """
    from glimmer_export.exporter.checkpoint.config import parse_config

    config, tokenizer = demo_start(architecture)
    layers = {"num_stage_b_layers": T5_LAYERS, "num_retrieved": 1}
    return parse_config(config.model_dump() | layers, subject="the demo's T5"), tokenizer
