"""Questions in two parts: by their words and the seed, never by their place."""

from __future__ import annotations

import random

import pytest

from glimmer_export.calibration.questions import Question, read_questions
from glimmer_export.exporter.tune.split import rows_of, split_questions
from glimmer_export.runtime.contract import OptionError, QuestionFileError


def asked(count: int) -> list[Question]:
    return [
        Question(str(place), f"Who made number {place}?", (f"maker {place}",), None, (place,)) for place in range(count)
    ]


def test_parts_do_not_depend_on_the_order_and_hold_every_question_once():
    questions = asked(200)
    split = split_questions(questions, 0.25, seed=3)
    shuffled = random.Random(1).sample(questions, len(questions))
    again = split_questions(shuffled, 0.25, seed=3)
    assert {item.qid for item in again.held_out} == {item.qid for item in split.held_out}
    assert len(split.held_out) == 50
    assert sorted([*split.search, *split.held_out], key=lambda item: int(item.qid)) == questions
    assert split_questions(questions, 0.25, seed=4).held_out != split.held_out


def test_a_question_that_stands_twice_is_on_one_side():
    again = [Question(f"2 {item.qid}", f"  {item.question.upper()} ", item.answers, None, ()) for item in asked(40)]
    split = split_questions([*asked(40), *again], 0.5, seed=0)
    sides = [{item.question.strip().lower() for item in part} for part in (split.search, split.held_out)]
    assert not sides[0] & sides[1]


def test_questions_without_answers_are_in_neither():
    questions = [*asked(8), Question("none", "Why?", (), None, ())]
    split = split_questions(questions, 0.5, seed=0)
    assert (split.ungraded, len(split.search) + len(split.held_out)) == (1, 8)


def test_too_few_are_refused():
    with pytest.raises(QuestionFileError, match="to judge by"):
        split_questions(asked(3), 0.5, seed=0)
    with pytest.raises(OptionError, match="held-out"):
        split_questions(asked(20), 0.01, seed=0)


def test_rows_are_read_back_as_they_were(tmp_path):
    questions = [
        Question("a", "Who\u2028?", ("x", "y"), None, (1, "b"), task="slot"), Question("b", "What?", ("z",), None, ()),
    ]
    path = tmp_path / "q.jsonl"
    path.write_text(rows_of(questions), encoding="utf-8")
    assert read_questions(path) == questions
    path.write_text(rows_of(questions, [[3, "c"], []]), encoding="utf-8")
    assert [item.passages for item in read_questions(path)] == [(3, "c"), ()]
