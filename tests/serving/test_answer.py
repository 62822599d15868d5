"""/v1/answer gives what Session.answer gives."""

from __future__ import annotations

import pytest

from glimmer_export.runtime import Session
from tests.exported import CORPUS, QUESTIONS
from tests.golden.whole import GOLDEN as ALL_GOLDEN
from tests.serving.conftest import serving


def without_time(answer: dict) -> dict:
    return {name: value for name, value in answer.items() if name != "milliseconds"}


def expected(session, question, **options) -> dict:
    found = session.answer(question, **options).to_dict()
    kept = ("question", "answer", "log_probability", "decoder_runs", "passages")
    return {name: found[name] for name in kept} | {"abstained": False}


def test_a_question_is_answered_as_the_session_does(client, session):
    for question in QUESTIONS[:3]:
        found = client.post("/v1/answer", json={"question": question}).json()
        assert without_time(found) == expected(session, question)
        assert {"retrieve", "decode", "total"} <= found["milliseconds"].keys()


def test_several_questions_are_answered_in_their_order(client, session):
    found = client.post("/v1/answer", json={"question": QUESTIONS, "top_k": 3, "top_m": 1}).json()["answers"]
    assert [item["question"] for item in found] == QUESTIONS
    for item, question in zip(found, QUESTIONS, strict=True):
        alone = expected(session, question, top_k=3, top_m=1)
        assert item["answer"] == alone["answer"]
        assert [passage["id"] for passage in item["passages"]] == [passage["id"] for passage in alone["passages"]]


def test_passages_are_ids_or_texts(client):
    given = [CORPUS[1]["id"], {"id": CORPUS[0]["id"]}, "w1 w2", "w3", {"title": "w4", "text": "w5 w6", "id": "mine"}]
    found = client.post("/v1/answer", json={"question": "w1", "passages": given}).json()
    assert [passage["id"] for passage in found["passages"]] == [CORPUS[1]["id"], CORPUS[0]["id"], None, None, "mine"]
    assert [passage["text"] for passage in found["passages"]][2:] == ["w1 w2", "w3", "w5 w6"]


def test_an_unlikely_answer_is_kept_back(client):
    asked = {"question": QUESTIONS[0]}
    likely = client.post("/v1/answer", json={**asked, "min_log_probability": -1000}).json()
    kept = client.post("/v1/answer", json={**asked, "min_log_probability": 0}).json()
    assert likely["answer"] is not None
    assert not likely["abstained"]
    assert kept["answer"] is None
    assert kept["abstained"]
    assert kept["passages"] == likely["passages"]


def test_an_older_bundle_that_does_not_tell_how_likely_answers_are_cannot_keep_any_back():
    with Session.open(ALL_GOLDEN / "bundle", threads=1) as session, serving(session) as (client, _):
        asked = {"question": "w1", "passages": ["w1 w2"]}
        assert client.post("/v1/answer", json=asked).json()["log_probability"] is None
        response = client.post("/v1/answer", json={**asked, "min_log_probability": -1})
        assert response.status_code == 400
        assert "min_log_probability" in response.json()["error"]["message"]


@pytest.mark.parametrize("passage", CORPUS[:2], ids=["id is a text", "id is a number"])
def test_a_passage_is_found_by_its_id(client, passage):
    found = client.get(f"/v1/passages/{passage['id']}").json()
    assert found == {**passage, "wikipedia_id": None}


def test_no_passage_of_an_id_is_404(client):
    response = client.get("/v1/passages/none/of/it")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "PassageError"
