"""An answer as JSON: every field of it, whatever came of the question."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from math import inf, nan
from pathlib import Path

import pytest

from glimmer_export.runtime import Answer, Passage, QuestionError, RankedPassage
from tests.exported import CORPUS

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
ERROR = QuestionError("question ''", expected="some text", found="none", fix="ask something")


def round_trip(answer: Answer) -> dict[str, object]:
    found = answer.to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_every_field_has_a_key_and_every_key_is_documented():
    item = RankedPassage(Passage(1, "t", "x"), None, None, read=True)
    found = round_trip(Answer("q", "a", passages=(item,)))
    assert set(found) == {field.name for field in fields(Answer)}
    wanted = {field.name for kind in (Passage, RankedPassage) for field in fields(kind)} - {"passage"}
    assert set(found["passages"][0]) == wanted | {"rank"}
    for key in (*found, *found["passages"][0]):
        assert re.search(rf"`{key}`", DOCUMENT), key


def test_an_answer_as_json(glimmer):
    answer = glimmer.session.answer("w3 w14 w15", 4, 2)
    found = round_trip(answer)
    assert (found["question"], found["answer"], found["error"]) == ("w3 w14 w15", answer.answer, None)
    assert found["token_ids"] == list(answer.token_ids)
    assert [item["rank"] for item in found["passages"]] == [1, 2, 3, 4]
    rows = {row["id"]: row for row in CORPUS}
    for item, ranked in zip(found["passages"], answer.passages, strict=True):
        assert (item["title"], item["text"]) == (rows[item["id"]]["title"], rows[item["id"]]["text"])
        assert (item["retrieval_score"], item["score"]) == (ranked.retrieval_score, ranked.score)
    assert found["milliseconds"] == answer.milliseconds


def test_what_was_refused_carries_its_errors_class_and_parts(glimmer):
    refused, unknown = glimmer.session.answer_many(["", "w1"], passages=[[1], ["nowhere"]])
    assert round_trip(refused)["error"] == {
        "type": "QuestionError", "subject": "question ''", "expected": "some text", "found": "none",
        "fix": "ask something",
    }
    assert round_trip(unknown)["error"]["type"] == "PassageError"
    assert refused.read_passages == ()
    assert round_trip(refused)["passages"] == []


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_no_number_is_not_a_number(value):
    item = RankedPassage(Passage("p", "", "x"), value, value, read=True)
    found = round_trip(Answer("q", "a", passages=(item,), milliseconds={"total": value}))
    assert (found["passages"][0]["score"], found["passages"][0]["retrieval_score"]) == (None, None)
    assert found["milliseconds"] == {"total": None}


def test_text_that_utf8_cannot_write_is_json_all_the_same():
    round_trip(Answer("w1 \udcff", None, error=ERROR))


@pytest.mark.parametrize("variant", ["glimmer", "fid"])
def test_what_the_decoder_read_in_its_order(exported, variant):
    source = exported(variant)
    answer = source.session.answer("w3 w14 w15", passages=[row["id"] for row in CORPUS[:5]])
    read = [answer.passages[place] for place in answer.selected]
    assert list(answer.read_passages) == read
    assert len(read) == (source.shape.num_selected if source.shape.traits.selects else 5)
    again = source.session.answer("w3 w14 w15", passages=[item.passage.id for item in answer.read_passages])
    assert again.token_ids == answer.token_ids
