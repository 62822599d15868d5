"""What a T5 is pre-trained on in the demo's world: its texts alone, with a span missing that stands in a passage."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from glimmer_export.exporter.demo.generator import demo_start
from glimmer_export.exporter.demo.world import Question, Split, World, generate_split

if TYPE_CHECKING:
    from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = ["cloze_start", "generate_cloze"]

MISSING = "[SEP]"
MOST_WORDS = 3
T5_LAYERS = 6


def generate_cloze(
    split: Split, num_questions: int, seed: int, facts_per_passage: int = 2, num_contexts: int = 1
) -> World:
    """Sentences of a demo world's passages with one to three words missing, each with the passage among others.

    No question and no answer of the world is used. The sentence is asked with `[SEP]` where the words were, and they
    are the answer. The other passages are random ones. Raises ValueError as `generate_split`.
    """
    rng = random.Random(f"cloze {split} {seed}")
    world = generate_split(split, num_questions, seed, facts_per_passage)
    questions = []
    for qid in range(num_questions):
        passage = rng.choice(world.corpus)
        words = rng.choice(passage["text"].removesuffix(".").split(". ")).split()
        count = rng.randint(1, min(MOST_WORDS, len(words)))
        start = rng.randrange(len(words) - count + 1)
        missing = " ".join(words[start : start + count])
        asked = " ".join([*words[:start], MISSING, *words[start + count :], "."])
        others = rng.sample(range(len(world.corpus)), num_contexts)
        context = [passage["id"], *(other for other in others if other != passage["id"])][:num_contexts]
        rng.shuffle(context)
        gold = [passage["id"]]
        questions.append(
            Question(qid=qid, task="cloze", question=asked, answers=[missing], ctx_ids=context, gold_ids=gold)
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
