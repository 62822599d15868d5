"""Rows for real text: questions made by rule ask for what stands in the text; nothing of a dev row's answer is left."""

from __future__ import annotations

import random

from glimmer_export.exporter.training.relevance import has_answer
from glimmer_export.runtime.store import Passage
from tests.real_text.prepare import near, wider, withheld
from tests.real_text.pseudo_questions import EDGES, ask

TEXT = (
    "The first railway of the valley was opened on 14 June 1836 by George Hale, and it carried 4,200 people a week. "
    "Its last station stood in Merrowby near the old quarry, where coal from the mines was loaded at night."
)
FILLER = " ".join(["word"] * 40)
PASSAGE = {"id": 7, "title": "Valley railway", "text": TEXT}
OTHERS = [{"id": number, "title": "Other", "text": f"Nothing of it, number {number}"} for number in range(100, 160)]


def test_a_question_made_of_a_statement_has_its_answer_where_it_says():
    words = TEXT.split()
    kinds = set()
    for seed in range(200):
        asked = ask(random.Random(seed), PASSAGE["title"], words, ["odd"])
        if asked is not None:
            assert " ".join(words[asked.start : asked.end]).strip(EDGES) == asked.answer
            kinds.add((asked.answer, asked.question.split()[0]))
    assert {"14 June 1836", "George Hale", "4,200", "Merrowby"} <= {answer for answer, _ in kinds}
    assert ("4,200", "how") in kinds
    assert ("Merrowby", "where") in kinds


def test_a_text_without_an_answer_gives_no_question():
    assert ask(random.Random(0), "", ["and", "it", "was", "so"], []) is None


def test_a_window_is_about_the_answer_that_the_question_is_near():
    twice = {"id": 1, "title": "", "text": f"Hale was born. {FILLER} {TEXT} {FILLER} Then Hale left."}
    row = {"question": "who opened the railway of the valley", "answers": ["Hale"], "gold_ids": [1]}
    made = near(random.Random(0), row, twice, 0)
    assert made is not None
    assert "George Hale" in made[1]["text"]
    wide = wider(random.Random(0), made, {1: twice})[1]
    assert "George Hale" in wide["text"]
    assert len(wide["text"].split()) > len(made[1]["text"].split())
    assert near(random.Random(0), row | {"answers": ["absent"]}, twice, 0) is None


def test_a_row_withheld_has_as_many_passages_and_none_with_an_answer():
    telling = {"id": 8, "title": "Hale", "text": "He was George Hale."}
    corpus = [PASSAGE, telling, *OTHERS]
    row = {
        "question": "who opened it", "answers": ["George Hale"], "gold_ids": [7], "ctx_ids": [100, 7, 8, 101],
        "has_answer": [False, True, True, False],
    }  # fmt: skip
    for seed in range(20):
        given = withheld(random.Random(seed), row, corpus)["ctx_ids"]
        by_id = {each["id"]: Passage(each["id"], each["title"], each["text"]) for each in corpus}
        assert len({*given}) == 4
        assert given[::3] == [100, 101]
        assert not any(has_answer(by_id[each], row["answers"]) for each in given)
