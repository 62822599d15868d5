"""The questions with their passages: found once, for the largest k that any model is asked with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glimmer_export.calibration.questions import given_passages
from glimmer_export.exporter.evaluation.questions import TaskQuestion
from glimmer_export.runtime.candidates import Candidate, PassageSource, candidates_from_given, candidates_from_search
from glimmer_export.runtime.contract import GlimmerError, OptionError, PassageError, QuestionError
from glimmer_export.runtime.store import Passage

__all__ = ["Asked", "Found", "find_passages"]


@dataclass(frozen=True)
class Asked(TaskQuestion):
    """A question of a task with its passages, best first; `error` if it, or what is given with it, cannot be taken."""

    candidates: tuple[Candidate, ...] = ()
    error: GlimmerError | None = None


@dataclass(frozen=True)
class Found:
    """Questions in their order, and the passages that they name.

    A candidate's number is its place in the store if there is one, and None for a text given beside it; without a store
    it is the place among `texts`, where each passage stands once. `names_pages`: whether passages may have pages.
    `folder` is for what models make of the texts.
    """

    asked: list[Asked]
    texts: list[Passage]
    names_pages: bool
    folder: Path | None = None


def find_passages(
    questions: Sequence[TaskQuestion],
    source: PassageSource | None,
    top_k: int,
    *,
    given: bool,
    stored: bool,
    names_pages: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Found:
    """The first `top_k` passages of each question: those `given` with it, or those that the source finds.

    `stored`: the source is the store that models read. Raises OptionError without a source to find them in,
    QuestionFileError if a question is given none.
    """
    if source is None and not given:
        raise OptionError(
            "evaluate", expected="--corpus or --store to retrieve from, or --passages given", found="neither",
            fix="name a corpus, which every model can read, or a store, or take the passages given with the questions",
        )
    table = _Table()
    asked = []
    for item in questions:
        try:
            if given or source is None:
                found = candidates_from_given(source, given_passages(item.question)[:top_k])
            else:
                found = candidates_from_search(source, item.question.question, top_k)
        except (QuestionError, PassageError) as error:
            asked.append(Asked(item.question, item.task, error=error))
        else:
            taken = found if stored else [table.add(candidate) for candidate in found]
            asked.append(Asked(item.question, item.task, tuple(taken)))
        advance(1)
    pages = any(candidate.passage.wikipedia_id is not None for item in asked for candidate in item.candidates)
    return Found(asked, table.texts, names_pages or pages)


class _Table:
    """Passages by their places, each once."""

    def __init__(self) -> None:
        self.texts: list[Passage] = []
        self._places: dict[int | Passage, int] = {}

    def add(self, candidate: Candidate) -> Candidate:
        key = candidate.passage if candidate.number is None else candidate.number
        place = self._places.setdefault(key, len(self.texts))
        if place == len(self.texts):
            self.texts.append(candidate.passage)
        return replace(candidate, number=place)
