"""What a comparison rests on: how many questions were asked, how many of them both sides answered, and why not more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glimmer_export.exporter.parity.grades import num_graded, num_right
from glimmer_export.exporter.parity.ranking import num_ranked, num_with_gold
from glimmer_export.exporter.parity.rows import Row
from glimmer_export.exporter.parity.sides import Reply

__all__ = ["Answered", "Coverage", "coverage_of"]


@dataclass(frozen=True)
class Coverage:
    """Numbers of questions: `asked` are `answered`, `refused` and `unretrieved`, each in one of these.

    `answered`: passages were found, so that the graphs ran; only these count in any share. `refused`: no question or
    passage that can be taken. `unretrieved`: no passage was found. Of the answered ones: to those that are `blank`
    neither side says a word; the others hold `distinct` ones, which differ in their tokens or in which passages they
    have, in whatever order; `graded` have answers, `right` are those that the reference has right; in `ranked` more
    passages were found than are read, in `with_gold` a gold passage is among them.
    """

    asked: int
    answered: int
    refused: int
    unretrieved: int
    blank: int
    distinct: int
    graded: int
    right: int
    ranked: int
    with_gold: int


@dataclass(frozen=True)
class Answered:
    """The questions that were answered, with both sides' replies."""

    rows: list[Row]
    references: list[Reply]
    candidates: list[Reply]


def coverage_of(
    rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply], *, refused: int
) -> tuple[Coverage, Answered]:
    """Count, and leave out what was not answered; `rows` are all that could be taken."""
    places = [place for place, row in enumerate(rows) if row.candidates]
    said = [rows[place] for place in places if references[place].tokens or candidates[place].tokens]
    answered = Answered(
        [rows[place] for place in places], [references[place] for place in places],
        [candidates[place] for place in places],
    )
    coverage = Coverage(
        asked=len(rows) + refused,
        answered=len(places),
        refused=refused,
        unretrieved=len(rows) - len(places),
        blank=len(places) - len(said),
        distinct=len({(tuple(row.ids), frozenset(row.numbers)) for row in said}),
        graded=num_graded(answered.rows, answered.references),
        right=num_right(answered.rows, answered.references),
        ranked=num_ranked(answered.references),
        with_gold=num_with_gold(answered.rows, answered.references),
    )
    return coverage, answered
