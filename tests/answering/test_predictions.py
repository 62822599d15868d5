"""Files of predictions: KILT's rows, the pages that they name, and ids that tell rows apart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from glimmer_export.calibration.questions import Question, read_questions
from glimmer_export.exporter.answering.file import check_ids, kilt_predictions, ranked_pages
from glimmer_export.runtime import Answer, Passage, RankedPassage
from glimmer_export.runtime.contract import QuestionFileError


def answered(*entries: tuple[str | None, float | None]) -> Answer:
    """An answer from passages of these pages with these scores, as they were retrieved; p0 is the first."""
    return Answer("?", "x", passages=tuple(
        RankedPassage(Passage(f"p{place}", f"title of p{place}", "x", page), 1.0, score, read=place < 2)
        for place, (page, score) in enumerate(entries)
    ))


def test_predictions_are_kilt_rows(tmp_path):
    questions = [Question("q1", "é \u200b \U0001f600", ("x",), None, ()), Question("q2", "who?", (), None, ())]
    first = replace(answered(("7", 1.0), (None, 3.0), ("8", 2.0), ("7", 0.5)), log_probability=-1.25)
    answers = [first, Answer("who?", None)]
    pages = [{"wikipedia_id": "8", "title": "title of p2"}, {"wikipedia_id": "7", "title": "title of p0"}]
    path = tmp_path / "predictions.jsonl"
    path.write_text(kilt_predictions(questions, answers))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "id": "q1", "input": "é \u200b \U0001f600",
            "output": [{"answer": "x", "log_probability": -1.25, "provenance": pages}],
        },
        {"id": "q2", "input": "who?", "output": [{"answer": "", "log_probability": None, "provenance": []}]},
    ]
    assert [question.qid for question in read_questions(path)] == ["q1", "q2"]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([("1", 0.1), ("2", 0.3), ("3", 0.2)], ["p1", "p2", "p0"]),
        ([("1", 0.1), ("2", 0.3), ("1", 0.4)], ["p2", "p1"]),
        ([("1", 0.3), ("2", 0.3), ("3", 0.3)], ["p0", "p1", "p2"]),
        ([("1", None), ("2", None), ("1", None)], ["p0", "p1"]),
        ([(None, 0.1), (None, 0.2)], []),
        ([], []),
    ],
)
def test_pages_stand_in_the_order_of_scores_each_once(entries, expected):
    assert [passage.id for passage in ranked_pages(answered(*entries))] == expected


@pytest.mark.parametrize("ids", [("1", "2", "1"), ("1", " 1")])
def test_two_questions_of_one_id_are_named(ids):
    with pytest.raises(QuestionFileError, match="an id of its own"):
        check_ids([Question(qid, f"text {place}", (), None, ()) for place, qid in enumerate(ids)])
