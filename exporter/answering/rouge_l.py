"""Rouge-L by the package that KILT's script uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from glimmer_export.exporter.answering.metrics import gold_answers

__all__ = ["RougeL", "rouge_l_scorer"]

RougeL = Callable[[str | None, Iterable[str]], float]
"""(prediction, answers) -> the F-measure of the gold that fits best, from 0.0 to 1.0; text is taken as it stands."""


def rouge_l_scorer() -> RougeL | None:
    """What scores an answer; None where the package `rouge` is not installed.

    The scorer raises RecursionError for texts with about a thousand words in one sentence, as the package does.
    """
    try:
        from rouge import Rouge
    except ModuleNotFoundError:
        return None
    rouge = Rouge(metrics=["rouge-l"], stats=["f"])

    def score(prediction: str | None, answers: Iterable[str]) -> float:
        text = (prediction or "").strip()
        return max((_score(rouge, text, gold) for gold in gold_answers(answers)), default=0.0) if text else 0.0

    return score


def _score(rouge: Any, text: str, gold: str) -> float:
    try:
        scores = rouge.get_scores(text, gold, avg=True)
    except ValueError:  # nothing but full stops
        return 0.0
    return float(scores["rouge-l"]["f"])
