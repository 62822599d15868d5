"""Answers that are told as they come: their parts, joined, are the answer."""

from __future__ import annotations

import json

import pytest

from tests.exported import QUESTIONS


def events_of(response) -> list[tuple[str, dict]]:
    """The name and the data of every event."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_the_parts_of_an_answer_joined_are_the_answer(client):
    for question in QUESTIONS[:4]:
        whole = client.post("/v1/answer", json={"question": question}).json()
        events = events_of(client.post("/v1/answer", json={"question": question, "stream": True}))
        assert [name for name, _ in events[:-1]] == ["token"] * (len(events) - 1)
        assert "".join(data["text"] for _, data in events[:-1]) == whole["answer"]
        name, last = events[-1]
        assert name == "answer"
        assert last["answer"]["answer"] == whole["answer"]
        assert last["answer"]["passages"] == whole["passages"]


def test_of_several_questions_each_has_its_own(client):
    wanted = client.post("/v1/answer", json={"question": QUESTIONS}).json()["answers"]
    texts, answers = [""] * len(QUESTIONS), {}
    for name, data in events_of(client.post("/v1/answer", json={"question": QUESTIONS, "stream": True})):
        assert data["index"] not in answers, "a token behind its answer"
        if name == "token":
            texts[data["index"]] += data["text"]
        else:
            answers[data["index"]] = data["answer"]["answer"]
    assert texts == [item["answer"] or "" for item in wanted]
    assert [answers[index] for index in range(len(QUESTIONS))] == [item["answer"] for item in wanted]


@pytest.mark.parametrize(("least", "told"), [(-1000, True), (0, False)])
def test_of_an_answer_that_may_be_kept_back_nothing_is_told_before_it_is_known(client, least, told):
    asked = {"question": QUESTIONS[1], "min_log_probability": least, "stream": True}
    events = events_of(client.post("/v1/answer", json=asked))
    (answer,) = [data["answer"] for name, data in events if name == "answer"]
    assert [data["text"] for name, data in events if name == "token"] == ([answer["answer"]] if told else [])
    assert answer["abstained"] is not told


def test_what_is_wrong_before_the_first_event_is_a_status(client):
    response = client.post("/v1/answer", json={"question": "w1 " * 400, "stream": True})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "QuestionError"


def test_what_goes_wrong_later_is_an_event(client, session, monkeypatch):
    def answer_many(questions, *_, on_token, on_answer, **options):
        on_token(0, "some")
        raise RuntimeError("a secret of the host: /etc/passwd")

    monkeypatch.setattr(session, "answer_many", answer_many)
    events = events_of(client.post("/v1/answer", json={"question": "w1", "stream": True}))
    assert [name for name, _ in events] == ["token", "error"]
    assert events[1][1]["error"]["type"] == "InternalError"
    assert "/etc" not in json.dumps(events)
