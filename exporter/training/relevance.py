"""Which of a question's passages are relevant, and which questions are left out for having none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.answering.metrics import normalise_answer
from glimmer_export.runtime.candidates import Candidate, PassageSource
from glimmer_export.runtime.contract import PassageError
from glimmer_export.runtime.store import Passage

__all__ = ["RelevanceFilter", "has_answer", "has_provenance", "known_gold"]

RelevanceFilter = Literal["none", "provenance", "gold_or_answer"]
"""`provenance` goes by `has_provenance`; `gold_or_answer` keeps a row if a gold passage, or one that has an answer, is
among those retrieved."""


def has_provenance(question: Question, threshold: float) -> bool:
    """Whether KILT found the evidence of a row well enough (Hofstaetter et al. 2022, relevance sampling).

    KILT maps the evidence of each data set to its own Wikipedia, and says with what BLEU score it found it there. The
    paper takes the best score of a row as the confidence that its question can be answered from that Wikipedia, and
    trains on rows of at least `threshold`. What was retrieved does not count. A row without provenance has no score.
    """
    return question.evidence_score is not None and question.evidence_score >= threshold


def known_gold(question: Question, candidates: Sequence[Candidate], source: PassageSource | None) -> list[Candidate]:
    """The passages that a row names as its gold.

    By id, whether they are among the candidates or are looked up in the source, which may not have them; and those of
    the candidates that are of a Wikipedia page that KILT's provenance names.
    """
    pages = {page for evidence in question.evidence or () for page in evidence if page is not None}
    found = [
        candidate for candidate in candidates
        if candidate.passage.id in question.gold_ids or candidate.passage.wikipedia_id in pages
    ]
    there = {candidate.passage.id for candidate in found}
    for identifier in question.gold_ids:
        if identifier not in there and source is not None:
            try:
                (number,) = source.numbers([identifier])
            except PassageError:
                continue
            there.add(identifier)
            found.append(Candidate(source.passages([number])[0], number, None))
    return found


def has_answer(passage: Passage, answers: Iterable[str]) -> bool:
    """Whether one of the answers stands in a passage's title or text, whole words, as KILT's exact match normalises."""
    text = f" {normalise_answer(passage.title)} | {normalise_answer(passage.text)} "
    return any(f" {wanted} " in text for answer in answers if (wanted := normalise_answer(answer)))
