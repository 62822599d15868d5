"""Questions made of statements by rule: a bridge from missing words to real questions.

After the noisy clozes of Lewis et al. 2019 ("Unsupervised Question Answering by Cloze Translation"): a date, a number,
a name or a phrase is the answer; the words about it in its sentence, some dropped, changed or out of place, are asked
for with a question word that fits its kind.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

__all__ = ["Asked", "ask"]

_STOP = """
a about after all also an and any are as at be been before being between both but by can could did do does during each
for from had has have he her his how if in into is it its may more most no not of on one only or other over same she so
some such than that the their them then there these they this through to under until up was we were what when where
which while who will with would you
"""
_MONTHS = "January February March April May June July August September October November December"
STOP_WORDS, MONTHS = frozenset(_STOP.split()), frozenset(_MONTHS.split())
ASKED_WITH = {
    "date": ("when", "when did", "when was", "what year", "in what year", "on what date"),
    "number": ("how many", "how many", "how much", "what", "what number of"),
    "share": ("what percentage of", "how much", "how many"),
    "place": ("where", "where is", "where was", "where did", "in what", "what city"),
    "name": ("who", "who", "who was", "who is", "what", "what is the name of", "which"),
    "phrase": ("what", "what", "what is", "what are", "what did", "what was", "what type of", "which", "how"),
}
PLACED_BY = frozenset({"in", "at", "near", "from"})
EDGES = ".,;:()[]\"'“”"
SIDE, LEAST, LONGEST_PHRASE = 11, 3, 3
"""Words of a sentence on each side of the answer, at most; of them in the question, at least; of a phrase, at most."""
DROPPED_STOP, DROPPED, CHANGED, SWAPPED, WITH_TITLE, IN_PLACE = 0.3, 0.15, 0.08, 0.15, 0.3, 0.15


@dataclass(frozen=True)
class Asked:
    """A question, its answer as it stands in the text, and where: words `start` to `end` of the text."""

    question: str
    answer: str
    start: int
    end: int


def ask(rng: random.Random, title: str, words: list[str], others: list[str]) -> Asked | None:
    """A question about a text, given as its words; None if no answer is found in it.

    Every kind of answer that the text has is as likely. `others` are words that take the place of some of the
    question's.
    """
    found = _answers(words)
    if not found:
        return None
    kind = rng.choice(sorted(found))
    start, end = rng.choice(found[kind])
    before, after = _sides(words, start, end)
    side = rng.random()
    if before and (side < 0.4 or not after):
        after = []
    elif side < 0.65 or not before:
        before = []
    first, last = _noisy(rng, before, others), _noisy(rng, after, others)
    asked = rng.choice(ASKED_WITH[kind]).split()
    if rng.random() < IN_PLACE:
        question = [*first, *asked[:2], *last]
    else:
        question = asked + (first + last if rng.random() < 0.5 else last + first)
    if title and rng.random() < WITH_TITLE:
        question += re.sub(r"\(.*\)", "", title).split()
    answer = " ".join(words[start:end]).strip(EDGES)
    return Asked(" ".join(question), answer, start, end) if answer and len(first + last) >= LEAST else None


def _answers(words: list[str]) -> dict[str, list[tuple[int, int]]]:
    """Stretches that can be asked for, by kind."""
    found: dict[str, list[tuple[int, int]]] = {}
    place = 0
    while place < len(words):
        kind, end = _answer_at(words, place)
        if kind:
            found.setdefault(kind, []).append((place, end))
        place = end
    return found


def _answer_at(words: list[str], start: int) -> tuple[str, int]:
    """The kind of the answer that begins at a word, "" for none, and the word behind it."""
    bare = words[start].strip(EDGES)
    if bare in MONTHS or re.fullmatch(r"1[0-9]\d\d|20\d\d", bare):
        return "date", _run(words, start, r"\d{1,4}") if bare in MONTHS else start + 1
    if re.fullmatch(r"[$£€]?\d[\d,.]*%?", bare):
        return _number_at(words, start, bare)
    begins = start == 0 or words[start - 1][-1] in ".!?"
    if bare[:1].isupper() and not begins and bare.lower() not in STOP_WORDS:
        placed = words[start - 1] in PLACED_BY or words[max(0, start - 2) : start] == ["in", "the"]
        return ("place" if placed else "name"), _run(words, start, r"[A-Z].*")
    if bare.isalpha() and bare.islower() and bare not in STOP_WORDS and start and _is_stop(words[start - 1]):
        end = _run(words, start, r"[a-z-]+")
        bounded = end == len(words) or words[end - 1][-1] in ".,;:" or _is_stop(words[end])
        return ("phrase" if end - start <= LONGEST_PHRASE and bounded else ""), end
    return "", start + 1


def _number_at(words: list[str], start: int, bare: str) -> tuple[str, int]:
    end = start + 1
    if end < len(words) and words[end].strip(EDGES) in MONTHS:
        return "date", _run(words, end, r"\d{4}")
    if bare[0] in "$£€" or bare[-1] == "%":
        return ("share" if bare[-1] == "%" else "number"), end
    return "number", end + (end < len(words) and words[end].strip(EDGES) in ("million", "billion", "percent"))


def _run(words: list[str], start: int, pattern: str) -> int:
    """The end of a run of words without punctuation between them but a date's comma; no stop words."""
    end = start + 1
    while (
        end < len(words) and end - start < 5 and not _is_stop(words[end])
        and words[end][0] not in EDGES
        and (words[end - 1][-1] not in EDGES or (words[end - 1][-1] == "," and words[end - 2] in MONTHS))
        and re.fullmatch(pattern, words[end].strip(EDGES))
    ):  # fmt: skip
        end += 1
    return end


def _is_stop(word: str) -> bool:
    return word.strip(EDGES).lower() in STOP_WORDS


def _sides(words: list[str], start: int, end: int) -> tuple[list[str], list[str]]:
    """The words of the sentence before and behind an answer, the nearest eleven at most, without punctuation."""
    first, last = start, end
    while first > max(0, start - SIDE) and words[first - 1][-1] not in ".!?":
        first -= 1
    while last < min(len(words), end + SIDE) and words[last - 1][-1] not in ".!?":
        last += 1
    bare = [[plain for word in part if (plain := word.strip(EDGES))] for part in (words[first:start], words[end:last])]
    return bare[0], bare[1]


def _noisy(rng: random.Random, words: list[str], others: list[str]) -> list[str]:
    kept = []
    for word in words:
        if rng.random() < (DROPPED_STOP if _is_stop(word) else DROPPED):
            continue
        kept.append(rng.choice(others) if rng.random() < CHANGED else word)
    for place in range(len(kept) - 1):
        if rng.random() < SWAPPED:
            kept[place : place + 2] = kept[place + 1], kept[place]
    return kept
