"""Exact match and token F1 as KILT and SQuAD count them: on normalised text, against the answer that fits best."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["exact_match", "normalise_answer", "token_f1"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, then without the words a, an and the; single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 where the prediction is one of the answers, normalised; otherwise 0.0."""
    return float(normalise_answer(prediction) in map(normalise_answer, answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 over the answers, from 0.0 to 1.0, of the words that prediction and answer share.

    Nothing left after normalisation shares no word, not even with nothing: so KILT has it.
    """
    words = Counter(normalise_answer(prediction).split())
    return max((_f1(words, Counter(normalise_answer(answer).split())) for answer in answers), default=0.0)


def _f1(predicted: Counter[str], expected: Counter[str]) -> float:
    shared = (predicted & expected).total()
    # 2PR / (P + R) with P = shared / predicted and R = shared / expected.
    return 2 * shared / (predicted.total() + expected.total()) if shared else 0.0
