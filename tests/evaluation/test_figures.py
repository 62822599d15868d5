"""Figures by question: those that `answer` reports of a file, and when a gold passage counts as read."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.answering.file import scored_rows
from glimmer_export.exporter.answering.scores import scores_of
from glimmer_export.exporter.evaluation.figures import FIGURES, gold_among, has_gold, question_figures
from glimmer_export.exporter.evaluation.passages import Asked
from glimmer_export.runtime import Answer, Passage
from glimmer_export.runtime.answer import RankedPassage
from glimmer_export.runtime.candidates import Candidate


def question(*answers: str, gold: tuple = (), evidence: tuple | None = None) -> Question:
    return Question("q", "who?", answers, None, gold, evidence)


def passage(identifier: int | str, page: str | None = None) -> Passage:
    return Passage(identifier, "title", "text", page)


def asked(item: Question, *passages: Passage) -> Asked:
    return Asked(item, "task", tuple(Candidate(one, place, None) for place, one in enumerate(passages)))


def answered(text: str | None, *passages: Passage, read: tuple[int, ...] = (0,)) -> Answer:
    ranked = [RankedPassage(one, None, -float(place), place in read) for place, one in enumerate(passages)]
    return Answer("who?", text, passages=tuple(ranked))


PAGES = (passage(1, "A"), passage(2, "B"), passage("1", "C"))


@pytest.mark.parametrize(
    ("item", "read", "expected"),
    [
        (question(gold=(1,)), PAGES[:1], 1.0),
        (question(gold=(1,)), PAGES[1:], 0.0),  # "1" is another id
        (question(gold=("1", 7)), PAGES[2:], 1.0),
        (question(gold=(1,)), (), 0.0),
        (question(), PAGES, None),
        (question(evidence=(("A",), ("Z",))), PAGES[:1], 1.0),
        (question(evidence=(("A", "B"),)), PAGES[:1], 0.0),  # both pages are needed
        (question(evidence=(("A", "B"),)), PAGES[:2], 1.0),
        (question(evidence=(("A", None),)), PAGES, None),  # one page has no name: it cannot be told
        (question(evidence=((),)), PAGES, None),
        (question(gold=(2,), evidence=(("A",),)), PAGES[:1], 0.0),  # ids say it more exactly than pages
    ],
)
def test_gold_counts_by_ids_or_by_whole_sets_of_pages(item, read, expected):
    assert gold_among(item, read, names_pages=True) == expected
    assert has_gold(item, names_pages=True) == (expected is not None)


def test_pages_say_nothing_of_passages_that_have_none():
    item = question(evidence=(("A",),))
    assert gold_among(item, [passage(1)], names_pages=False) is None
    assert gold_among(question(gold=(1,)), [passage(1)], names_pages=False) == 1.0


def test_means_are_what_answer_reports():
    rows = [
        (question("july 1886", evidence=(("A",),)), answered("July 1886.", *PAGES)),
        (question("a hat", "cap", evidence=(("C",), ("B",))), answered("red cap", *PAGES)),
        (question("x", evidence=((None,),)), answered("x", *PAGES)),
        (question("y"), answered(None)),
        (question(evidence=(("B",),)), answered("z", *PAGES)),
    ]
    items = [asked(item, *(found.passage for found in answer.passages)) for item, answer in rows]
    values, notes = question_figures(items, [answer for _, answer in rows], names_pages=False)
    scores = scores_of(scored_rows([item for item, _ in rows], [answer for _, answer in rows], names_pages=False)[0])
    expected = {
        **{name: getattr(scores, name) for name in FIGURES if hasattr(scores, name)},
        **{f"recall@{k}": value for k, value in (scores.recall or {}).items()},
    }
    by_name = dict(zip(FIGURES, values.T, strict=True))
    assert {name: np.nanmean(by_name[name]) for name in expected} == pytest.approx(expected)
    assert set(FIGURES) - set(expected) == {"gold_in_m", "gold_in_k"}
    assert notes == ()


def test_what_no_question_names_is_no_figure():
    item = question("x", evidence=((None,),))
    values, _ = question_figures([asked(item, *PAGES)], [answered("x", *PAGES)], names_pages=True)
    measured = {name for name, value in zip(FIGURES, values[0], strict=True) if not np.isnan(value)}
    assert measured == {"em", "f1", "accuracy", "rouge_l"}


def test_gold_in_m_is_of_those_read_and_gold_in_k_of_those_retrieved():
    item = question("x", gold=(2,))
    for read, expected in (((0, 2), 0.0), ((1,), 1.0)):
        values, _ = question_figures([asked(item, *PAGES)], [answered("x", *PAGES, read=read)], names_pages=False)
        found = dict(zip(FIGURES, values[0], strict=True))
        assert (found["gold_in_m"], found["gold_in_k"]) == (expected, 1.0)
