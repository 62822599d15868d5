"""A corpus as large as asked for, of words whose frequencies fall as in a natural language (Zipf), from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from glimmer_export.runtime.retrieval.words import STOP_WORDS
from glimmer_export.runtime.store import Passage

ONSETS = ("b", "ch", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")
CODAS = ("", "n", "r", "s", "l")
SYLLABLES = ["".join(parts) for parts in product(ONSETS, VOWELS, CODAS)]
VOCABULARY = 200_000
ENDINGS = ("", "", "", "s", "ed", "ing", "er")
TEXT_WORDS, TITLE_WORDS, QUESTION_WORDS = (60, 140), (1, 4), (3, 7)
SENTENCE_WORDS = 16
AT_ONCE = 1000


def vocabulary() -> np.ndarray:
    """Words by rank, the most frequent first, where the stop words are, as in English."""
    ranks = np.arange(VOCABULARY)
    first, rest = ranks % len(SYLLABLES), ranks // len(SYLLABLES)
    words = [
        SYLLABLES[one] + SYLLABLES[(two * 7 + one) % len(SYLLABLES)] + ENDINGS[(one + two) % len(ENDINGS)]
        for one, two in zip(first, rest, strict=True)
    ]
    common = sorted(STOP_WORDS)
    return np.array([*common, *words[len(common) :]])


def word_ranks(generator: np.random.Generator, count: int) -> np.ndarray:
    """Ranks with a probability of 1 / (rank + 2.7), by inverting its distribution."""
    low, high = np.log(2.7), np.log(VOCABULARY + 2.7)
    return (np.exp(low + generator.random(count) * (high - low)) - 2.7).astype(np.int64).clip(0, VOCABULARY - 1)


def passages(count: int, *, seed: int = 0) -> Iterator[Passage]:
    """The passages; equal arguments give equal ones. Titles are of rarer words than texts."""
    words, generator = vocabulary(), np.random.default_rng(seed)
    for start in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - start)
        lengths = generator.integers(*TEXT_WORDS, size)
        ends = np.cumsum(lengths)
        text_words = words[word_ranks(generator, int(ends[-1]))].tolist()
        title_lengths = generator.integers(*TITLE_WORDS, size)
        title_words = words[generator.integers(len(STOP_WORDS), VOCABULARY, int(title_lengths.sum()))].tolist()
        title_ends = np.cumsum(title_lengths)
        for row in range(size):
            text = text_words[ends[row] - lengths[row] : ends[row]]
            sentences = [text[at : at + SENTENCE_WORDS] for at in range(0, len(text), SENTENCE_WORDS)]
            yield Passage(
                start + row,
                " ".join(title_words[title_ends[row] - title_lengths[row] : title_ends[row]]).title(),
                " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences),
            )


def templated(count: int, *, seed: int = 0) -> Iterator[Passage]:
    """Passages of one sentence with other names in it: a question's other words are in all of them."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, AT_ONCE):
        chosen = generator.integers(len(SYLLABLES), size=(min(AT_ONCE, count - start), 6))
        for row, parts in enumerate(chosen.tolist()):
            words = ["".join(SYLLABLES[part] for part in parts[at : at + 2]) for at in (0, 2, 4)]
            name, town = f"{words[0]} {words[1]}".title(), words[2]
            yield Passage(start + row, name, f"{name} was born in {town.title()}. The trade of {name} is {town}ing.")


def questions(source: list[Passage], *, seed: int = 0) -> list[str]:
    """A question on each of these passages: question words, some words of its text, and often one of its title."""
    generator = np.random.default_rng(seed)
    asked = []
    for passage in source:
        content = [word for word in passage.text.lower().replace(".", "").split() if word not in STOP_WORDS]
        chosen = generator.choice(content, min(len(content), int(generator.integers(*QUESTION_WORDS))), replace=False)
        title = passage.title.split()[:1] if generator.random() < 0.5 else []
        asked.append(" ".join(["who", "was", "the", *title, *chosen, "in"]) + "?")
    return asked
