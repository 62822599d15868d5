"""/v1/rerank: the scores of stage A, in the shape of Jina's and Cohere's."""

from __future__ import annotations

import math

import pytest

from glimmer_export.runtime import Passage, Session
from tests.exported import CORPUS
from tests.serving.conftest import GOLDEN, serving

TEXTS = [row["text"] for row in CORPUS[:12]]


def test_documents_are_ordered_by_the_models_score(client, session):
    found = client.post("/v1/rerank", json={"query": "w1 w2", "documents": TEXTS, "model": "any"}).json()
    assert isinstance(found["id"], str)
    assert found["model"] == "bundle"
    results = found["results"]
    scores = [item.score for item in session.rank("w1 w2", [Passage(None, "", text) for text in TEXTS]).passages]
    assert [item["score"] for item in results] == pytest.approx(sorted(scores, reverse=True))
    assert [item["score"] for item in results] == pytest.approx([scores[item["index"]] for item in results])
    assert sum(item["relevance_score"] for item in results) == pytest.approx(1)
    ratio = results[0]["relevance_score"] / results[1]["relevance_score"]
    assert math.log(ratio) == pytest.approx(results[0]["score"] - results[1]["score"])
    assert all("document" not in item for item in results)


def test_the_best_few_have_the_relevance_that_they_have_among_all(client):
    asked = {"query": "w1 w2", "documents": TEXTS}
    every = client.post("/v1/rerank", json=asked).json()["results"]
    best = client.post("/v1/rerank", json={**asked, "top_n": 3}).json()["results"]
    assert best == every[:3]
    assert len(client.post("/v1/rerank", json={**asked, "top_n": 500}).json()["results"]) == len(TEXTS)


def test_what_is_null_is_as_if_it_were_left_out(client):
    asked = {"query": "w1 w2", "documents": TEXTS}
    given = {**asked, "top_n": None, "return_documents": None, "model": None, "rank_fields": None}
    first, second = (client.post("/v1/rerank", json=body).json()["results"] for body in (asked, given))
    assert first == second


def test_cohere_version_2_asks_at_another_address(client):
    asked = {"query": "w1 w2", "documents": TEXTS, "top_n": 2, "model": "any"}
    first, second = (client.post(f"/{version}/rerank", json=asked).json()["results"] for version in ("v1", "v2"))
    assert first == second


def test_texts_are_scored_as_each_alone_whatever_their_lengths(client):
    """They are encoded a few of like length at a time."""
    texts = [f"w{number} " * (1 + 7 * number % 23) + "w1" for number in range(20)]
    assert len({len(text.split()) for text in texts}) > 15

    def scores(documents):
        found = client.post("/v1/rerank", json={"query": "w1 w2", "documents": documents}).json()["results"]
        return [item["score"] for item in sorted(found, key=lambda item: item["index"])]

    together = scores(texts)
    assert len(set(together)) == len(texts)
    assert together == pytest.approx([scores([text])[0] for text in texts], abs=1e-4)


def test_texts_and_stored_passages_are_scored_alike(client):
    row = CORPUS[1]
    forms = [{"title": row["title"], "text": row["text"], "rank_fields": []}, row["id"], {"id": row["id"]}]
    asked = {"query": "w1 w2", "documents": forms, "return_documents": True}
    results = client.post("/v1/rerank", json=asked).json()["results"]
    assert {item["index"] for item in results} == {0, 1, 2}
    by_index = {item["index"]: item for item in results}
    assert by_index[1]["score"] == by_index[2]["score"]
    # The store's is in INT8, the text's memory was encoded just now.
    assert by_index[0]["score"] == pytest.approx(by_index[1]["score"], abs=0.1)
    assert by_index[0]["document"] == {"title": row["title"], "text": row["text"]}
    assert by_index[1]["document"] == {"id": row["id"], "title": row["title"], "text": row["text"]}


def test_a_bundle_that_does_not_rank_says_so():
    with Session.open(GOLDEN / "bundle-fid", threads=1) as session, serving(session) as (client, _):
        response = client.post("/v1/rerank", json={"query": "w1", "documents": ["w2"]})
        assert response.status_code == 400
        assert "ranks" in response.json()["error"]["message"]
        # and one without a store is told what to send
        response = client.post("/v1/answer", json={"question": "w1"})
        assert response.status_code == 400
        assert "passages" in response.json()["error"]["message"]
        assert client.post("/v1/answer", json={"question": "w1", "passages": ["w1 w2"]}).status_code == 200
        assert client.get("/v1/passages/1").status_code == 400
        assert client.post("/v1/refresh").status_code == 400


@pytest.mark.parametrize("document", ["", "  ", {"text": ""}, {"id": "nowhere"}, 10**6])
def test_a_document_that_is_none_is_named(client, document):
    response = client.post("/v1/rerank", json={"query": "w1", "documents": ["w1", document]})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "PassageError"
