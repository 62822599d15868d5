"""Grades against values counted by hand, and against those of KILT's own script."""

from __future__ import annotations

import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.answering.metrics import exact_match, grade, normalise_answer, token_f1
from glimmer_export.exporter.parity.figures import em_of, equal_of_correct, f1_of
from glimmer_export.exporter.parity.inputs import Row
from glimmer_export.exporter.parity.sides import Reply
from tests.answering.kilt_table import kilt_rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles!", "beatles"),
        ("an apple a day", "apple day"),
        ("Theodore R. Knight", "theodore r knight"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("the-end", "theend"),
        ("a.b", "ab"),
        ("A", ""),
        ("\tBeyonc\u00c9\n", "beyonc\u00e9"),
        ("\u201cquoted\u201d", "\u201cquoted\u201d"),
    ],
)
def test_normalisation(text, expected):
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("the Eiffel Tower", ["Paris", "Eiffel tower."], 1.0),
        ("Eiffel", ["Eiffel Tower"], 0.0),
        (" Paris\n", ["paris"], 1.0),
        ("", ["the"], 0.0),
        (" \t", ["The The"], 0.0),
        (None, ["A"], 0.0),
        ("an", ["The The"], 1.0),
        ("...", ["A"], 1.0),
        ("...", [" ", ""], 0.0),
        ("", ["x"], 0.0),
        ("x", [], 0.0),
    ],
)
def test_exact_match(prediction, answers, expected):
    assert exact_match(prediction, answers) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("the Eiffel Tower", ["Eiffel tower"], 1.0),
        ("Eiffel", ["Eiffel Tower"], 2 / 3),  # P 1, R 1/2
        ("in Paris France today", ["Paris, France"], 2 / 3),  # P 2/4, R 1
        ("b b c", ["b b d e"], 4 / 7),  # P 2/3, R 2/4
        ("b b", ["b"], 2 / 3),  # a word counts as often as both have it
        ("x", ["y", "x z", "x"], 1.0),
        ("x", ["y"], 0.0),
        ("the", ["a"], 0.0),
        ("", [], 0.0),
    ],
)
def test_token_f1(prediction, answers, expected):
    assert token_f1(prediction, answers) == pytest.approx(expected)


def test_a_row_without_a_gold_is_not_graded():
    assert grade("x", []) is grade("", [" ", "\u3000"]) is None
    assert grade(None, ["The", " "]) is not None


def test_every_odd_row_is_graded_as_by_kilts_script():
    for row in kilt_rows():
        given = grade(row.answer, row.answers)
        if row.kilt is None:  # its script fails where no gold is left
            assert given is None
        elif given is None:
            assert not row.answer.strip(), "its script counts a row without a gold where the answer is blank"
        else:
            assert [given.accuracy, given.em, given.f1] == pytest.approx(row.kilt[:3], abs=1e-11), row


def test_parity_grades_as_kilts_script_does():
    graded = [row for row in kilt_rows() if grade(row.answer, row.answers) is not None and row.kilt is not None]
    rows = [Row(Question(str(place), "?", row.answers, None, ()), [], []) for place, row in enumerate(graded)]
    replies = [Reply(text=row.answer) for row in graded]
    silent = [Reply(tokens=(1,)) for _ in graded]
    ungraded = Row(Question("none", "?", ("\u3000",), None, ()), [], [])
    for metric, place in ((em_of, 1), (f1_of, 2)):
        delta = metric([*rows, ungraded], [*replies, Reply(text="x")], [*silent, Reply(text="x")])
        assert delta.reference == pytest.approx(sum(row.kilt[place] for row in graded) / len(graded))
        assert delta.candidate == 0
    assert equal_of_correct(rows, replies, silent) == 0
    assert equal_of_correct(rows, silent, replies) is None
