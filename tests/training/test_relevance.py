"""Gold passages, passages with an answer, and KILT's provenance as a filter."""

from __future__ import annotations

import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.training.relevance import has_answer, has_provenance, known_gold
from glimmer_export.runtime.candidates import Candidate
from glimmer_export.runtime.contract import PassageError
from glimmer_export.runtime.store import Passage


def candidate(identifier, page=None, number=None):
    return Candidate(Passage(identifier, "", "text", page), number, None)


class Source:
    """Has the passage "far", under the number 9."""

    def numbers(self, ids):
        if ids != ["far"]:
            raise PassageError("passage", expected="an id", found="none", fix="")
        return [9]

    def passages(self, numbers):
        return [Passage("far", "", "away") for _ in numbers]


def question(**changes):
    return Question("q", "who?", ("Ada",), None, **{"gold_ids": (), **changes})


def test_gold_is_known_by_its_id():
    candidates = [candidate("a"), candidate(1), candidate("1")]
    assert known_gold(question(gold_ids=("1", "a")), candidates, None) == [candidates[0], candidates[2]]


def test_gold_that_was_not_retrieved_is_looked_up():
    found = known_gold(question(gold_ids=("far", "nowhere", "far")), [candidate("a")], Source())
    assert [one.number for one in found] == [9]
    assert known_gold(question(gold_ids=("far",)), [candidate("a")], None) == []


def test_gold_is_known_by_its_page():
    candidates = [candidate("a", "7"), candidate("b"), candidate("c", "8"), candidate("d", "7")]
    assert known_gold(question(evidence=(frozenset({"7", None}),)), candidates, None) == [candidates[0], candidates[3]]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Ada Lovelace", True), ("the ada lovelace", True), ("Ada, Lovelace!", True), ("Love", False), ("1815", True),
        ("computing London", False), ("  ", False), ("the", False),
    ],
)
def test_an_answer_stands_in_whole_words(answer, found):
    passage = Passage(1, "History of computing", "London: Ada Lovelace was born (1815).")
    assert has_answer(passage, [answer]) is found
    assert has_answer(passage, ["nothing", answer]) is found
    assert not has_answer(passage, [])


@pytest.mark.parametrize(("score", "kept"), [(None, False), (0.49, False), (0.5, True), (1.0, True)])
def test_provenance_is_a_threshold_on_kilts_own_score(score, kept):
    assert has_provenance(question(evidence_score=score), 0.5) is kept
