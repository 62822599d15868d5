"""Exact match, F1 and accuracy of answers, as KILT's script counts them: one function for every command that grades."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Grade", "exact_match", "gold_answers", "grade", "normalise_answer", "token_f1"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Grade:
    """One answer against its golds: `em` on normalised text, `accuracy` on the text as it stands, `f1` of words.

    Each is that of the gold that fits best, from 0.0 to 1.0.
    """

    em: float
    f1: float
    accuracy: float


def grade(prediction: str | None, answers: Iterable[str]) -> Grade | None:
    """The grade of an answer; None if no gold is left to grade it by.

    White space around a text is not part of it. A gold that is nothing else is no gold; one that normalises to nothing
    ("A", "The The") stays, and only an answer that is not blank can match it: a question that was not answered is
    wrong, whatever its golds.
    """
    golds = gold_answers(answers)
    if not golds:
        return None
    text = (prediction or "").strip()
    if not text:
        return Grade(em=0.0, f1=0.0, accuracy=0.0)
    normalised = normalise_answer(text)
    expected = [normalise_answer(gold) for gold in golds]
    words = Counter(normalised.split())
    return Grade(
        em=float(normalised in expected), f1=max(_f1(words, Counter(gold.split())) for gold in expected),
        accuracy=float(text in golds),
    )


def gold_answers(answers: Iterable[str]) -> frozenset[str]:
    """The answers that count, without the white space around them."""
    return frozenset(stripped for answer in answers if (stripped := answer.strip()))


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, then without the words a, an and the; single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str | None, answers: Iterable[str]) -> float:
    """The grade's `em`; 0.0 if there is no gold."""
    graded = grade(prediction, answers)
    return 0.0 if graded is None else graded.em


def token_f1(prediction: str | None, answers: Iterable[str]) -> float:
    """The grade's `f1`; 0.0 if there is no gold."""
    graded = grade(prediction, answers)
    return 0.0 if graded is None else graded.f1


def _f1(predicted: Counter[str], expected: Counter[str]) -> float:
    """Of the words that both have, as often as both have them; nothing shares no word, not even with nothing."""
    shared = (predicted & expected).total()
    if not shared:
        return 0.0
    precision, recall = shared / predicted.total(), shared / expected.total()
    return 2 * precision * recall / (precision + recall)
