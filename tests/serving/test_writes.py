"""Passages added, replaced and deleted over HTTP: by whom, one at a time, and that questions go on meanwhile."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from starlette.testclient import TestClient

from glimmer_export.exporter.memory import (
    CorpusSource,
    StoreWriter,
    append_passages,
    build_store,
    delete_passages,
    index_store,
    verify_store,
)
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.contract import OptionError, OutputError, StoreError
from glimmer_export.runtime.serving import Service, create_app, serve, settings_from
from glimmer_export.runtime.serving.endpoints import ENDPOINTS
from glimmer_export.runtime.serving.writes import MAX_WAITING
from glimmer_export.runtime.writes import MAX_WRITTEN, Written
from tests.bundle_factory import write_rows
from tests.encoder_factory import make_encoder
from tests.exported import QUESTIONS
from tests.serving.conftest import BUNDLE, GOLDEN
from tests.serving.test_limits import refused
from tests.serving.test_upkeep import metrics

TOKEN, WRITE_TOKEN = b"0123456789abcdef0123456789abcdef", b"a token that is of writes alone"
WRITES = {"authorization": f"Bearer {WRITE_TOKEN.decode()}"}
NEW = {"id": "fresh", "title": "w1", "text": "w2 w3"}
LONG_S = 60


@pytest.fixture
def store(tmp_path) -> Path:
    return Path(shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store"))


@contextmanager
def writing(
    store: Path, *, writer: object = None, token: bytes | None = None, **settings: object
) -> Iterator[tuple[TestClient, Session]]:
    """A client of a server that takes writes, and its session."""
    with Session.open(BUNDLE, store, threads=1, retrieval=str(settings.get("retrieval", "bm25"))) as session:
        found = settings_from(settings, {"bundle": BUNDLE, "store": store})
        writer = writer or StoreWriter.open(store, BUNDLE, threads=1)
        service = Service.of(session, found, writer=writer)  # type: ignore[arg-type]
        with TestClient(create_app(service, token, WRITE_TOKEN), base_url="http://localhost") as client:
            assert service.worker.is_warm.wait(LONG_S)
            yield client, session


def send(client: TestClient, method: str, body: object, path: str = "/v1/passages", headers: object = WRITES):
    return client.request(method, path, json=body, headers=headers)


def test_passages_come_are_replaced_and_go(store):
    with writing(store) as (client, session):
        before, generation = session.store.num_passages, session.store.manifest.generation
        made = send(client, "POST", NEW).json()
        assert made == {
            "generation": generation + 1, "ids": ["fresh"], "added": 1, "replaced": 0, "deleted": 0, "truncated": 0,
            "passages": before + 1, "already_complete": False, "warnings": made["warnings"],
        }
        assert client.get("/v1/passages/fresh").json()["text"] == "w2 w3"
        several = [{"id": 900, "text": "w4 " * 200}, {**NEW, "text": "w9", "wikipedia_id": "77"}]
        refused(send(client, "POST", several), 409, "TakenIdError")
        assert client.get("/v1/passages/900").status_code == 404
        made = send(client, "PUT", several).json()
        assert (made["added"], made["replaced"], made["truncated"], made["passages"]) == (2, 1, 1, before + 2)
        assert client.get("/v1/passages/fresh").json() == {**NEW, "text": "w9", "wikipedia_id": "77"}
        answer = client.post("/v1/answer", json={"question": "w9"}).json()
        assert "fresh" in [passage["id"] for passage in answer["passages"]]
        message = refused(send(client, "DELETE", {"ids": [900, "900"]}), 404, "PassageError")
        assert "'900'" in message
        assert send(client, "DELETE", {"ids": [900, 900]}).json()["deleted"] == 1
        made = send(client, "DELETE", None, "/v1/passages/fresh").json()
        assert (made["ids"], made["deleted"], made["passages"]) == (["fresh"], 1, before)
        assert made["generation"] == generation + 4
        refused(send(client, "DELETE", None, "/v1/passages/fresh/not there"), 404, "PassageError")
        found = metrics(client)
    assert verify_store(store).damaged == ()
    written = {kind: found[f'glimmer_passages_written_total{{change="{kind}"}}'] for kind in ("added", "deleted")}
    assert written == {"added": 3, "deleted": 2}
    assert found["glimmer_write_seconds_count"] == 4
    assert found["glimmer_store_generation"] == generation + 4
    assert found['glimmer_requests_total{path="/v1/passages",status="409"}'] == 1


def test_a_write_that_is_sent_again_is_done_once(store):
    with writing(store) as (client, session):
        before = session.store.manifest.generation
        first, again = send(client, "POST", NEW).json(), send(client, "POST", NEW).json()
        assert (first["generation"], first["added"], first["already_complete"]) == (before + 1, 1, False)
        assert (again["generation"], again["added"], again["already_complete"]) == (before + 1, 0, True)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_write_asks_for_a_token_of_its_own(store, token):
    changes = [item for item in ENDPOINTS if item.path.startswith("/v1/passages") and item.method != "GET"]
    assert {item.method for item in changes} == {"POST", "PUT", "DELETE"}
    reads = {} if token is None else {"authorization": f"Bearer {token.decode()}"}
    with writing(store, token=token) as (client, session):
        for item in changes:
            assert item.writes
            path = item.path.replace("{id}", "1")
            for headers in ({}, {"authorization": f"Bearer {TOKEN.decode()}"}, {"authorization": "Bearer "}):
                refused(send(client, item.method, NEW, path, headers), 401, "Unauthorized")
        assert session.refresh() is None
        assert client.get("/v1/passages/1", headers=reads).status_code == 200
        assert client.get("/v1/passages/1", headers=WRITES).status_code == (200 if token is None else 401)
        paths = client.get("/openapi.json").json()["paths"]
    asked = {(path, method) for path in paths for method in paths[path]
             if paths[path][method].get("security") == [{"write_token": []}]}  # fmt: skip
    assert asked == {(item.path, item.method.lower()) for item in changes}


def test_without_a_token_for_them_there_are_no_writes(client):
    for method, path in (("POST", "/v1/passages"), ("PUT", "/v1/passages"), ("DELETE", "/v1/passages/1")):
        assert "--write-token-file" in refused(send(client, method, NEW, path), 403, "WritesOff")


PASSAGE = b'{"id": 1, "text": "w1"}'


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"1", b'"w1"', b"{}", b'{"id": 1}', b'{"text": "w1"}', b'{"id": 1, "text": ""}',
        b'{"id": 1, "text": " \\n\\t "}', b'{"id": 1, "text": "\\u001c"}', b'{"id": null, "text": "w1"}',
        b'{"id": 1.5, "text": "w1"}', b'{"id": true, "text": "w1"}', b'{"id": 99999999999999999999, "text": "w1"}',
        b'{"id": "\\ud800", "text": "w1"}', b'{"id": 1, "text": "\\udfff"}', b'{"id": 1, "text": "\xff"}',
        b'{"id": 1, "text": ["w1"]}', b'{"id": 1, "text": "w1", "title": null}',
        b'{"id": 1, "text": "w1", "path": "/"}',
        b"[" + PASSAGE + b"," + PASSAGE + b"]", b"[" + PASSAGE + b", null]", b"[[" + PASSAGE + b"]]", b"[" * 100_000,
        b'{"passages": [' + PASSAGE + b"]}", b"[" + b",".join([PASSAGE] * (MAX_WRITTEN + 1)) + b"]",
        b'{"id": "' + b"x" * 5000 + b'", "text": "w1"}', b'{"id": 1, "text": "' + b"w" * ((1 << 20) + 1) + b'"}',
    ],
    ids=lambda body: repr(body[:50]),
)
def test_what_is_no_passage_is_400(writes_client, body):
    client, session = writes_client
    for method in ("POST", "PUT"):
        response = client.request(
            method, "/v1/passages", content=body, headers={**WRITES, "content-type": "application/json"}
        )
        message = refused(response, 400)
        assert "/tmp" not in message
        assert len(message) < 1000
    assert session.refresh() is None


@pytest.fixture(scope="module")
def writes_client(tmp_path_factory) -> Iterator[tuple[TestClient, Session]]:
    """A client whose writes are all to be refused; bodies may be larger than by default."""
    store = Path(shutil.copytree(GOLDEN / "store-fp16", tmp_path_factory.mktemp("writes") / "store"))
    with writing(store, max_body_bytes=4 << 20) as asked:
        yield asked


@pytest.mark.parametrize(
    "body", [b"{}", b"[1]", b'{"ids": []}', b'{"ids": 1}', b'{"ids": [null]}', b'{"ids": [1], "id": 1}', b""], ids=repr
)
def test_what_is_no_deletion_is_400(writes_client, body):
    client, session = writes_client
    headers = {**WRITES, "content-type": "application/json"}
    refused(client.request("DELETE", "/v1/passages", content=body, headers=headers), 400)
    refused(client.request("DELETE", "/v1/passages", content=body, headers=WRITES), 415)
    assert session.refresh() is None


def test_a_large_write_is_413(store):
    with writing(store, max_body_bytes=1024) as (client, _):
        refused(send(client, "POST", {**NEW, "text": "w1 " * 1000}), 413, "BodyTooLarge")


class Held:
    """A writer that waits for its gate; `most` changes were under way together, `begun` in all."""

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self.gate, self.entered = Event(), Event()
        self.now = self.most = self.begun = 0

    def put(self, passages, *, replace):
        self.now, self.begun = self.now + 1, self.begun + 1
        self.most = max(self.most, self.now)
        self.entered.set()
        assert self.gate.wait(LONG_S)
        try:
            return self._writer.put(passages, replace=replace)
        finally:
            self.now -= 1

    def close(self) -> None:
        self._writer.close()


def test_writes_are_made_one_at_a_time_and_questions_go_on(store):
    held = Held(StoreWriter.open(store, BUNDLE, threads=1))
    with writing(store, writer=held) as (client, session), ThreadPoolExecutor(MAX_WAITING + 2) as pool:
        before = session.store.manifest.generation
        rows = [{**NEW, "id": f"fresh{index}"} for index in range(MAX_WAITING + 1)]
        sent = [pool.submit(send, client, "POST", row) for row in rows]
        assert held.entered.wait(LONG_S)
        answers = [client.post("/v1/answer", json={"question": question}) for question in QUESTIONS[:2]]
        assert [answer.status_code for answer in answers] == [200, 200]
        while True:  # until all of them wait, one more may be taken
            extra = pool.submit(send, client, "POST", {**NEW, "id": "extra"}).result(LONG_S)
            if extra.status_code == 429:
                break
        refused(extra, 429, "TooManyWrites")
        assert int(extra.headers["retry-after"]) >= 1
        held.gate.set()
        made = [answer.result(LONG_S) for answer in sent]
        assert {answer.status_code for answer in made} == {200}
        assert sorted(answer.json()["generation"] - before for answer in made) == list(range(1, len(rows) + 1))
        assert session.store.manifest.generation == before + len(rows)
    assert held.most == 1


def test_a_write_that_waits_too_long_is_not_made(store):
    held = Held(StoreWriter.open(store, BUNDLE, threads=1))
    with writing(store, writer=held, timeout_s=0.3) as (client, session), ThreadPoolExecutor(1) as pool:
        before = session.store.manifest.generation
        first = pool.submit(send, client, "POST", NEW)
        assert held.entered.wait(LONG_S)
        refused(send(client, "POST", {**NEW, "id": "late"}), 429, "TooManyWrites")
        held.gate.set()
        assert first.result(LONG_S).status_code == 200
        assert held.begun == 1
        assert client.get("/v1/passages/late").status_code == 404
        assert session.store.manifest.generation == before + 1


def test_questions_under_way_keep_their_generation(store):
    """Answers while passages come and go: each is wholly of one generation, and none fails."""
    with writing(store) as (client, session), ThreadPoolExecutor(3) as pool:
        end, before = Event(), session.store.manifest.generation

        def ask() -> list[tuple[set[str], list[int]]]:
            found = []
            while not end.is_set():
                answer = client.post("/v1/answer", json={"question": "w2 w3", "top_k": 4})
                assert answer.status_code == 200, answer.text
                found.append({item["text"] for item in answer.json()["passages"] if item["id"] in ("a", "b")})
            return found

        asking = [pool.submit(ask) for _ in range(3)]
        for step in range(12):
            pair = [{"id": name, "title": "w2", "text": f"w2 w3 w2 w{step}"} for name in ("a", "b")]
            assert send(client, "PUT", pair).status_code == 200
        end.set()
        texts = [item for each in asking for item in each.result(LONG_S)]
        assert session.store.manifest.generation == before + 12
    assert len(texts) > 3
    assert any(texts)
    assert all(len(item) <= 1 for item in texts), "passages of two generations in one answer"


def test_another_process_at_the_store_is_503_and_the_store_as_it_was(store):
    with writing(store) as (client, session):
        before = session.store.manifest.generation
        with work_directory(store):
            response = send(client, "POST", NEW)
            refused(response, 503, "BusyError")
            assert int(response.headers["retry-after"]) >= 1
        assert session.refresh() is None
        assert send(client, "POST", NEW).status_code == 200
        rows = write_rows(store.parent / "rows.jsonl", [{"id": "other", "text": "w5"}])
        append_passages(store, BUNDLE, rows, threads=1)
        made = send(client, "DELETE", {"ids": ["other"]}).json()
        assert made["generation"] == before + 3


def test_a_full_disk_is_507(store, monkeypatch):
    with writing(store) as (client, session):
        def full(*_arguments: object, **_options: object) -> None:
            raise OutputError("output x", expected="room", found="a full disk", fix="") from OSError(errno.ENOSPC, "")

        monkeypatch.setattr("glimmer_export.exporter.memory.writer.append_passages", full)
        refused(send(client, "POST", NEW), 507, "OutputError")
        assert session.refresh() is None


class Warns:
    """A writer that only warns, and names the store."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def put(self, passages, *, replace):
        return Written(generation=7, passages=1, added=len(passages), warnings=(f"see {self._store}", "other"))

    def close(self) -> None:
        """Nothing was loaded."""


def test_warnings_do_not_name_the_hosts_paths(store):
    with writing(store, writer=Warns(store)) as (client, _):
        assert send(client, "POST", NEW).json()["warnings"] == ["see the store", "other"]


def test_passages_are_found_by_their_vectors_at_once(store, tmp_path):
    index_store(store, encoder=make_encoder(tmp_path / "encoder"))
    with writing(store, retrieval="dense") as (client, _):
        made = send(client, "PUT", NEW).json()
        assert made["warnings"] == []
        found = client.post("/v1/answer", json={"question": "w1 w2 w3", "top_k": 20}).json()["passages"]
        assert "fresh" in [passage["id"] for passage in found]


def test_work_of_a_large_append_is_not_thrown_away(store):
    partial = store.with_name("store.partial")
    (partial / "store").mkdir(parents=True)
    with writing(store) as (client, _):
        (partial / "plan.json").write_text(json.dumps({"num_passages": MAX_WRITTEN + 1}), encoding="utf-8")
        refused(send(client, "POST", NEW), 500)
        assert (partial / "plan.json").exists()
        (partial / "plan.json").write_text(json.dumps({"num_passages": MAX_WRITTEN}), encoding="utf-8")
        assert send(client, "POST", NEW).status_code == 200
    assert not partial.exists()


def test_what_cannot_be_written_to_is_said_at_the_start(store, tmp_path):
    token = tmp_path / "token"
    token.write_bytes(TOKEN)
    base = {"bundle": BUNDLE, "store": store, "port": 0, "write_token_file": token}
    with pytest.raises(OptionError, match="write_token_file"):
        settings_from({**base, "store": None})
    with pytest.raises(OptionError, match="the runtime alone"):
        serve(settings_from(base))
    with pytest.raises(OptionError, match="a token of its own"):
        serve(settings_from(base, {"token_file": token}), open_writer=lambda: pytest.fail("opened"))
    (store / "link").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="link"):
        StoreWriter.open(store, BUNDLE)
    (store / "link").unlink()
    with pytest.raises(OutputError, match="apart"):
        StoreWriter.open(store, BUNDLE, inputs=[store / "manifest.json"])
    with pytest.raises(StoreError):
        StoreWriter.open(tmp_path, BUNDLE)


def test_a_document_is_deleted_whole(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": 5, "text": "w1 w2 w3 w4"}, {"id": 6, "text": "w5"}])
    build_store(BUNDLE, CorpusSource.of(rows, chunk_words=2), tmp_path / "store", codec="fp16", threads=1)
    writer = StoreWriter.open(tmp_path / "store", BUNDLE, threads=1)
    assert writer.delete([5]).deleted == 2
    made = writer.put([Passage(5, "", "w7 w8 w9"), Passage(6, "", "w1 w2 w3")], replace=True)
    assert (made.added, made.replaced, made.passages) == (4, 1, 4)
    writer.close()
    delete_passages(tmp_path / "store", ["6"])
