"""Health, metrics, the store's newest generation, parity, the schema and the log."""

from __future__ import annotations

import io
import json
import logging
import shutil

import pytest
from starlette.testclient import TestClient

from glimmer_export.exporter.memory import append_passages
from glimmer_export.runtime import Session
from glimmer_export.runtime.serving import Service, create_app, log_to, settings_from
from glimmer_export.runtime.serving.endpoints import ENDPOINTS
from glimmer_export.runtime.serving.server import parity_fault
from tests.bundle_factory import write_rows
from tests.exported import QUESTIONS
from tests.serving.conftest import BUNDLE, GOLDEN, STORE, serving


def metrics(client) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_what_was_done(session):
    with serving(session) as (client, _):
        client.post("/v1/answer", json={"question": QUESTIONS[:3]})
        client.post("/v1/answer", json={"question": ""})
        client.get("/v1/passages/1")
        client.get("/nothing/w1")
        found = metrics(client)
    assert found['glimmer_requests_total{path="/v1/answer",status="200"}'] == 1
    assert found['glimmer_requests_total{path="/v1/answer",status="400"}'] == 1
    assert found['glimmer_requests_total{path="/v1/passages/{id}",status="200"}'] == 1
    assert found['glimmer_requests_total{path="",status="404"}'] == 1
    assert found['glimmer_request_seconds_count{path="/v1/answer"}'] == 2
    assert found["glimmer_batch_questions_sum"] == 3
    assert found["glimmer_batch_tokens_sum"] > 0
    assert found["glimmer_queue_seconds_count"] == 3
    assert found["glimmer_queue_questions"] == 0
    assert found['glimmer_stage_seconds_count{stage="decode"}'] == 1
    assert found["glimmer_store_generation"] == session.store.manifest.generation
    assert found["glimmer_store_passages"] == session.store.num_passages
    assert found["glimmer_passage_cache_hits_total"] == found["glimmer_passage_cache_misses_total"] == 0
    assert not any("w1" in name for name in found), "a label that anybody can make up"


def test_a_refresh_takes_the_newest_generation(tmp_path):
    store = shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store")
    with Session.open(BUNDLE, store, threads=1) as session, serving(session) as (client, _):
        before = session.store.manifest.generation
        assert client.post("/v1/refresh").json() == {"changed": False, "generation": before}
        assert client.get("/v1/passages/added").status_code == 404
        rows = write_rows(tmp_path / "rows.jsonl", [{"id": "added", "title": "w1", "text": "w2 w3"}])
        append_passages(store, BUNDLE, rows, threads=1)
        assert client.post("/v1/refresh").json() == {"changed": True, "generation": before + 1}
        assert client.get("/v1/passages/added").json()["text"] == "w2 w3"
        assert metrics(client)["glimmer_store_generation"] == before + 1


def test_without_the_parity_that_is_required_it_is_never_ready(session, caplog):
    fault = parity_fault(session, "device")
    assert fault is not None
    assert "not ready" in caplog.text
    assert parity_fault(session, None) is None
    with serving(session, not_ready=fault) as (client, _):
        assert client.get("/healthz").status_code == 200
        for response in (client.get("/readyz"), client.post("/v1/answer", json={"question": "w1"})):
            assert response.status_code == 503
            assert response.json()["error"]["type"] == "BundleError"


@pytest.mark.parametrize("token", [None, b"a token of sixteen"])
def test_the_schema_asks_for_a_token_if_the_server_does(session, token):
    service = Service.of(session, settings_from({"bundle": BUNDLE, "store": STORE}))
    with TestClient(create_app(service, token), base_url="http://localhost") as client:
        operations = client.get("/openapi.json").json()["paths"]
        refused = {path for path in ("/metrics", "/healthz") if client.get(path).status_code == 401}
    said = {path for path in ("/metrics", "/healthz") if operations[path]["get"].get("security")}
    assert said == refused == (set() if token is None else {"/metrics"})


def test_the_schema_has_every_endpoint_and_no_reference_leads_nowhere(client):
    schema = client.get("/openapi.json").json()
    assert {(item.path, item.method.lower()) for item in ENDPOINTS} == {
        (path, method) for path, methods in schema["paths"].items() for method in methods
    }

    def references(node):
        if isinstance(node, dict):
            for name, value in node.items():
                yield from [value] if name == "$ref" else references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    wanted = set(references(schema))
    assert len(wanted) > 10
    assert wanted == {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}


@pytest.fixture
def lines():
    """What is logged, as JSON; the loggers are as before afterwards."""
    names = ("glimmer_export", "uvicorn.error", "asyncio", "glimmer_export.runtime.serving",
             "glimmer_export.runtime.serving.access")  # fmt: skip
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    stream = io.StringIO()
    log_to(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.parametrize("log_questions", [False, True])
def test_the_log_has_questions_only_if_it_may(session, lines, log_questions):
    question = "w3 w1 w4 w1"
    with serving(session, log_questions=log_questions) as (client, _):
        client.post("/v1/answer", json={"question": question}, headers={"x-request-id": "mine"})
        client.get("/healthz")
    asked, health = [line for line in lines() if line["event"] == "request"]
    assert (asked["request_id"], asked["status"], asked["path"], asked["num_questions"]) == (
        "mine", 200, "/v1/answer", 1,
    )
    assert asked["milliseconds"] > 0
    assert health["path"] == "/healthz"
    assert (question in json.dumps(lines())) is log_questions
    assert asked.get("questions") == ([question] if log_questions else None)


def test_a_traceback_is_one_line_of_the_log(session, lines, monkeypatch):
    monkeypatch.setattr(session, "passages", lambda ids: 1 / 0)
    with serving(session) as (client, _):
        client.get("/v1/passages/1")
    (failed,) = [line for line in lines() if line["level"] == "error"]
    assert "ZeroDivisionError" in failed["traceback"]


