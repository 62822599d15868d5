"""A batch's rows: questions that can be taken with their candidates, in parts that the graphs take, and what came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from glimmer_export.runtime.answer import RankedPassage
from glimmer_export.runtime.arguments import MAX_PASSAGES, items, question_text, whole_number
from glimmer_export.runtime.candidates import (
    Candidate,
    Given,
    candidates_from_given,
    candidates_from_search,
    join_question,
)
from glimmer_export.runtime.clock import StageClock
from glimmer_export.runtime.contract import ModelShape, OptionError, PassageError
from glimmer_export.runtime.reader import Reading
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder

__all__ = ["GivenRow", "Row", "checked_k_and_m", "checked_passages", "parts_of", "ranked_passages", "row_of"]

GivenRow = Iterable[Given]


@dataclass(frozen=True)
class Row:
    """A question that can be taken, by its place among all."""

    index: int
    question_ids: list[int]
    candidates: list[Candidate]


def checked_k_and_m(top_k: object, top_m: object, shape: ModelShape) -> tuple[int | None, int | None]:
    """How many passages are retrieved and read; raises OptionError where that cannot be."""
    k, m = (
        None if value is None else whole_number(name, value, least=1, most=MAX_PASSAGES)
        for name, value in (("top_k", top_k), ("top_m", top_m))
    )
    if m is not None and not shape.traits.selects:
        raise OptionError(
            "top_m", expected=f"None, as {shape.architecture} reads all passages", found=str(m),
            fix="leave it out, or lower top_k",
        )
    return k, m


def checked_passages(passages: object, num_questions: int, store: MemoryStore | None) -> list[object]:
    """What was given for each question, None where it retrieves; raises OptionError where that cannot be."""
    given = [None] * num_questions if passages is None else items("passages", passages, of="lists, one a question")
    if len(given) != num_questions:
        raise OptionError(
            "passages", expected=f"a list for each of {num_questions} questions", found=f"{len(given)}",
            fix="give None for a question that should retrieve",
        )
    if store is None and any(row is None for row in given):
        raise OptionError(
            "session", expected="a store to retrieve from, or passages", found="neither",
            fix="open it with store=..., or give passages=[...]",
        )
    return given


def row_of(
    index: int, question: object, given: object, top_k: int | None, *, store: MemoryStore | None, text: TextEncoder,
    shape: ModelShape, clock: StageClock,
) -> Row:
    """A question's tokens and passages: the first `top_k` of those `given`, or retrieved where these are None.

    Raises QuestionError and PassageError.
    """
    with clock.stage("tokenize"):
        question = question_text(question)
        question_ids = text.question(question)
    with clock.stage("retrieve"):
        if given is None and store is not None:
            candidates = candidates_from_search(store, question, top_k or shape.num_retrieved)
        else:
            passages = items("passages", given, of="ids, texts or Passages", error=PassageError)
            candidates = candidates_from_given(store, passages[:top_k])
    with clock.stage("tokenize"):
        return Row(index, question_ids, join_question(question, candidates, text, shape))


def parts_of(rows: list[Row], most: int | None) -> Iterator[list[Row]]:
    """Rows in as few parts of at most `most` as there can be, equal up to one row."""
    count = -(-len(rows) // (most or len(rows) or 1))
    for part in range(count):
        yield rows[part * len(rows) // count : (part + 1) * len(rows) // count]


def ranked_passages(row: Row, reading: Reading, place: int) -> tuple[RankedPassage, ...]:
    """The candidates of one row with the model's scores and what was read of them."""
    read = None if reading.selected is None else set(reading.selected[place].tolist())
    return tuple(
        RankedPassage(
            passage=candidate.passage,
            retrieval_score=candidate.retrieval_score,
            score=None if reading.scores is None else float(reading.scores[place, position]),
            read=read is None or position in read,
            truncated=candidate.truncated,
        )
        for position, candidate in enumerate(row.candidates)
    )
