"""What is asked and read: random tokens of exactly the lengths asked for, never constants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = ["BenchQuestion", "corpus_lines", "random_passages", "random_questions", "text_from_ids", "word_tokenizer"]


@dataclass(frozen=True)
class BenchQuestion:
    """One question with the passages that every contender is given, in one order.

    `token_ids` (question_tokens,) and each of `passage_ids` (passage_tokens,) end in EOS; `numbers` are the passages'
    ids in the store; `text` is what the tokenizer turns into `token_ids`.
    """

    text: str
    token_ids: tuple[int, ...]
    numbers: tuple[int, ...]
    passage_ids: tuple[tuple[int, ...], ...]


def random_passages(config: CheckpointConfig, count: int, num_tokens: int, *, seed: int) -> list[tuple[int, ...]]:
    """`count` passages of `num_tokens` random tokens each, EOS last."""
    return _random_rows(config, count, num_tokens, np.random.default_rng([seed, 0]))


def random_questions(
    config: CheckpointConfig, passages: Sequence[tuple[int, ...]], *, count: int, num_tokens: int, num_passages: int,
    seed: int,
) -> list[BenchQuestion]:
    """`count` questions of `num_tokens` random tokens, each with `num_passages` different ones of `passages`."""
    generator = np.random.default_rng([seed, 1])
    questions = []
    for ids in _random_rows(config, count, num_tokens, generator):
        numbers = tuple(int(number) for number in generator.permutation(len(passages))[:num_passages])
        chosen = tuple(passages[number] for number in numbers)
        questions.append(BenchQuestion(text_from_ids(ids[:-1]), ids, numbers, chosen))
    return questions


def text_from_ids(ids: Sequence[int]) -> str:
    """Text that `word_tokenizer` turns into these ids."""
    return " ".join(f"t{token}" for token in ids)


def word_tokenizer(vocab_size: int) -> bytes:
    """A tokenizer.json with one word a token: a text's length in tokens is then exactly what was asked for."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {f"t{token}": token for token in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    content: str = tokenizer.to_str()
    return content.encode()


def corpus_lines(passages: Sequence[tuple[int, ...]]) -> str:
    """The passages as a corpus file; a passage's id is its place."""
    rows = ({"id": number, "title": "", "text": text_from_ids(ids[:-1])} for number, ids in enumerate(passages))
    return "".join(json.dumps(row) + "\n" for row in rows)


def _random_rows(
    config: CheckpointConfig, count: int, num_tokens: int, generator: np.random.Generator
) -> list[tuple[int, ...]]:
    special = {config.pad_token_id, config.eos_token_id, config.decoder_start_token_id}
    ordinary = np.array([token for token in range(config.vocab_size) if token not in special])
    drawn = generator.choice(ordinary, (count, num_tokens - 1))
    return [(*row, config.eos_token_id) for row in drawn.tolist()]
