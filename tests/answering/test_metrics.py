"""Exact match and F1 against values counted by hand."""

from __future__ import annotations

import pytest

from exporter.answering.metrics import exact_match, normalise_answer, token_f1


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
        ("", ["the"], 1.0),
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
