"""/v1/chat/completions: what OpenAI's clients send and read."""

from __future__ import annotations

import json

import pytest

from tests.exported import QUESTIONS

QUESTION = QUESTIONS[1]


def asked(content=QUESTION, **options):
    return {"model": "any", "messages": [{"role": "user", "content": content}], **options}


def test_the_last_message_of_the_user_is_the_question(client, session):
    conversation = [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "w5"},
        {"role": "assistant", "content": "w6"}, {"role": "user", "content": QUESTION}, {"role": "assistant"},
    ]
    ignored = {"temperature": 0.7, "n": 3, "tools": [{"type": "function"}], "tool_choice": "auto", "seed": 1}
    found = client.post("/v1/chat/completions", json={"messages": conversation, **ignored}).json()
    expected = session.answer(QUESTION)
    assert found["object"] == "chat.completion"
    (choice,) = found["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == expected.answer
    cited = choice["message"]["annotations"]
    assert [item["passage"]["id"] for item in cited] == [item.passage.id for item in expected.read_passages]
    for item, passage in zip(cited, expected.read_passages, strict=True):
        assert item["type"] == "url_citation"
        assert item["url_citation"]["title"] == passage.passage.title
        assert client.get(item["url_citation"]["url"]).json()["text"] == passage.passage.text
    most = session.bundle.manifest.model.max_new_tokens
    assert choice["finish_reason"] == ("length" if len(expected.token_ids) == most else "stop")
    assert found["usage"]["completion_tokens"] == len(expected.token_ids)


def test_a_question_in_parts_is_its_texts(client, session):
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": QUESTION}]
    found = client.post("/v1/chat/completions", json=asked(parts)).json()
    assert found["choices"][0]["message"]["content"] == session.answer(QUESTION).answer


@pytest.mark.parametrize("usage", [False, True])
def test_chunks_joined_are_the_answer(client, session, usage):
    options = {"stream": True, "stream_options": {"include_usage": True}} if usage else {"stream": True}
    response = client.post("/v1/chat/completions", json=asked(**options))
    lines = response.text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    counted = [chunk for chunk in chunks if not chunk["choices"]]
    assert [bool(chunk.get("usage")) for chunk in counted] == ([True] if usage else [])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == session.answer(QUESTION).answer
    assert len(deltas[-1]["annotations"]) == len(session.answer(QUESTION).read_passages)
    ends = [chunk["choices"][0].get("finish_reason") for chunk in chunks if chunk["choices"]]
    assert set(ends[:-1]) == {None}
    assert ends[-1] in {"stop", "length"}


def test_what_is_null_is_as_if_it_were_left_out(client, session):
    """OpenAI's schema allows it of all that may be left out, and clients in typed languages send it."""
    ignored = dict.fromkeys(("temperature", "n", "tools", "max_tokens", "stop", "user"))
    response = client.post("/v1/chat/completions", json=asked(stream=None, stream_options=None, **ignored))
    assert response.json()["choices"][0]["message"]["content"] == session.answer(QUESTION).answer
    response = client.post("/v1/chat/completions", json=asked(stream=True, stream_options={"include_usage": None}))
    assert response.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in response.text


LONG = "w1 " * 10_000


@pytest.mark.parametrize("long", [LONG, [{"type": "text", "text": LONG}]], ids=["whole", "in parts"])
def test_what_was_said_before_may_be_long(client, session, long):
    conversation = [{"role": "user", "content": long}, {"role": "user", "content": QUESTION}]
    found = client.post("/v1/chat/completions", json={"messages": conversation}).json()
    assert found["choices"][0]["message"]["content"] == session.answer(QUESTION).answer
    assert client.post("/v1/chat/completions", json={"messages": conversation[:1]}).status_code == 400


@pytest.mark.parametrize(
    "messages", [[], [{"role": "system", "content": "w1"}], [{"role": "user"}], [{"role": "user", "content": " "}]]
)
def test_without_a_question_it_is_refused(client, messages):
    response = client.post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 400
    assert "messages" in response.json()["error"]["message"]
