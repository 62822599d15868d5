"""What is refused, by whom it may be asked, and that an error is one shape without anything of the host in it."""

from __future__ import annotations

import json
import re

import pytest
from starlette.testclient import TestClient

from glimmer_export.runtime import OptionError, StoreError
from glimmer_export.runtime.serving import Service, create_app, settings_from
from glimmer_export.runtime.serving.server import read_token
from tests.serving.conftest import BUNDLE, STORE, serving

TOKEN = b"0123456789abcdef0123456789abcdef"
JSON = {"content-type": "application/json"}


def refused(response, status, kind=None) -> str:
    """The message of an error of this status."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"type", "message", "request_id"}
    assert error["request_id"] == response.headers["x-request-id"]
    assert kind is None or error["type"] == kind
    assert str(BUNDLE.parent) not in response.text
    assert "Traceback" not in response.text
    return error["message"]


BAD_BODIES = [
    b"", b"{", b"null", b"[]", b'"w1"', b"{}", b'{"question": 1}', b'{"question": null}', b'{"question": ""}',
    b'{"question": []}', b'{"question": [1]}', b'{"question": ["w1", ""]}', b'{"question": "w1", "other": 1}',
    b'{"question": "w1", "top_k": 0}', b'{"question": "w1", "top_k": "5"}', b'{"question": "w1", "top_k": true}',
    b'{"question": "w1", "top_k": 1.5}', b'{"question": "w1", "top_m": 1e400}', b'{"question": "w1", "top_k": 100000}',
    b'{"question": "w1", "min_log_probability": 1}', b'{"question": "w1", "min_log_probability": NaN}',
    b'{"question": "w1", "passages": []}', b'{"question": "w1", "passages": "w1"}',
    b'{"question": "w1", "passages": [null]}', b'{"question": "w1", "passages": [true]}',
    b'{"question": "w1", "passages": [[]]}', b'{"question": "w1", "passages": [{}]}',
    b'{"question": "w1", "passages": [{"id": 1.5}]}', b'{"question": "w1", "passages": [{"id": 1, "x": 1}]}',
    b'{"question": "w1", "passages": [{"text": 1}]}', b'{"question": "w1", "passages": [99999999999999999999]}',
    b'{"question": "w1", "passages": [{"id": "not there"}]}', b'{"question": "w1", "passages": [""]}',
    b'{"question": "\xff"}', b'{"question": "\\ud800"}', b'{"question": "w1", "stream": 1}', b"[" * 100_000,
    b'{"question": "' + b"w1 " * 300 + b'"}', b'{"question": "' + b"w" * 30_000 + b'"}',
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:60]))
def test_a_body_that_is_none_is_400(client, body):
    refused(client.post("/v1/answer", content=body, headers=JSON), 400)


def test_a_body_must_be_said_to_be_json(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = client.post("/v1/answer", content=b'{"question": "w1"}', headers={"content-type": kind})
        refused(response, 415, "NotJson")


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/answer/", "/v1/answers", "//v1/answer", "/%2e%2e/etc"])
def test_an_unknown_address_is_404(client, path):
    refused(client.get(path), 404, "NotFound")


def test_another_method_is_405(client):
    for method, path in (("GET", "/v1/answer"), ("DELETE", "/v1/refresh"), ("POST", "/readyz")):
        response = client.request(method, path)
        refused(response, 405, "MethodNotAllowed")
        assert response.headers["allow"]


def test_a_large_body_is_413_however_it_is_sent(session):
    def parts():
        for _ in range(64):
            yield b" " * 1024

    with serving(session, max_body_bytes=4096) as (client, _):
        refused(client.post("/v1/answer", content=b" " * 5000, headers=JSON), 413, "BodyTooLarge")
        refused(client.post("/v1/answer", content=parts(), headers=JSON), 413, "BodyTooLarge")
        assert client.post("/v1/answer", content=b'{"question": "w1"}'.ljust(4096), headers=JSON).status_code == 200


def test_a_request_keeps_its_id_if_it_is_one(client):
    assert client.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for other in ("", "a b", "x" * 65, "<script>"):
        given = client.get("/healthz", headers={"x-request-id": other}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_a_token_is_asked_for_but_where_nothing_is_told(session):
    settings = settings_from({"bundle": BUNDLE, "store": STORE, "host": "0.0.0.0", "token_file": "t"})
    with TestClient(create_app(Service.of(session, settings), TOKEN), base_url="http://any.example") as client:
        given = {"authorization": f"Bearer {TOKEN.decode()}"}
        for path in ("/v1/passages/1", "/metrics", "/nothing"):
            response = client.get(path)
            refused(response, 401, "Unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
            assert client.get(path, headers=given).status_code in {200, 404}
        for wrong in ("Bearer", "Bearer ", "Basic x", TOKEN.decode(), f"Bearer {TOKEN.decode()[:-1]}", "Bearer é"):
            headers = {"authorization": wrong.encode("latin-1")}
            refused(client.get("/v1/passages/1", headers=headers), 401, "Unauthorized")
        refused(client.post("/v1/answer", json={"question": "w1"}), 401, "Unauthorized")
        assert client.get("/healthz").status_code == client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]", "[::1]:80", "LOCALHOST"])
def test_without_a_token_it_answers_to_this_machines_names(client, host):
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "[::2]"])
def test_without_a_token_it_answers_to_no_other_name(client, host):
    refused(client.get("/healthz", headers={"host": host}), 403, "OtherHost")


@pytest.mark.parametrize("host", ["127.0.0.2", "127.1.2.3"])
def test_it_answers_to_the_address_that_it_listens_on(session, host):
    with serving(session, ready=False, host=host) as (client, _):
        assert client.get("/healthz", headers={"host": f"{host}:8080"}).status_code == 200
        refused(client.get("/healthz", headers={"host": "evil.example"}), 403, "OtherHost")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_send_what_has_no_body(client, session, site):
    sent = {"origin": "https://page.example", "sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    refused(client.post("/v1/refresh", headers=sent), 403, "OtherSite")
    for own in ("same-origin", "none"):
        assert client.post("/v1/refresh", headers={"sec-fetch-site": own}).status_code == 200
    with serving(session, ready=False, cors_origins=("https://page.example",)) as (open_to_it, _):
        assert open_to_it.post("/v1/refresh", headers=sent).status_code == 200
        other = {**sent, "origin": "https://other.example"}
        refused(open_to_it.post("/v1/refresh", headers=other), 403, "OtherSite")


def test_no_other_site_is_let_in_unless_it_is_named(client, session):
    origin = {"origin": "https://page.example"}
    asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    assert "access-control-allow-origin" not in client.get("/healthz", headers=origin).headers
    assert client.options("/v1/answer", headers=asked).status_code == 405
    with serving(session, cors_origins=("https://page.example",)) as (open_to_it, _):
        allowed = open_to_it.options("/v1/answer", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        other = open_to_it.get("/healthz", headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_an_error_of_the_server_says_nothing_of_it(client, session, monkeypatch, caplog):
    def fail(*_, **options):
        raise StoreError(f"store {STORE}", expected="it whole", found="a hole", fix=f"see {STORE}")

    monkeypatch.setattr(session, "answer_many", fail)
    monkeypatch.setattr(session, "refresh", fail)
    for path in ("/v1/answer", "/v1/refresh"):
        response = client.post(path, json={"question": "w1"})
        refused(response, 500, "StoreError")
        assert response.json()["error"]["request_id"] in caplog.text
    assert str(STORE) in caplog.text


def test_an_unknown_passage_does_not_name_the_store(client):
    message = refused(client.post("/v1/answer", json={"question": "w1", "passages": [{"id": "none"}]}), 400)
    assert "an id in the store" in message


def test_a_bug_is_500_and_the_server_goes_on(client, session, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(session, "passages", lambda ids: 1 / 0)
        refused(client.get("/v1/passages/1"), 500, "InternalError")
    assert "ZeroDivisionError" in caplog.text
    assert client.get("/v1/passages/1").status_code == 200


@pytest.mark.parametrize("content", ["", "short", "one line of two\nand the other", "a\tb" * 10, "ü" * 20, "x" * 5000])
def test_a_token_file_must_hold_a_secret(tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(OptionError, match="token file"):
        read_token(path)


def test_a_tokens_line_may_end(tmp_path):
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    assert read_token(path) == TOKEN
    with pytest.raises(OptionError):
        read_token(tmp_path / "absent")


def test_every_error_is_of_the_schemas_shape(client):
    schema = client.get("/openapi.json").json()["components"]["schemas"]["ErrorBody"]
    error = json.loads(client.get("/nothing").text)["error"]
    assert error.keys() == schema["properties"].keys()


def test_an_error_does_not_say_back_a_long_name(client):
    response = client.post("/v1/answer", json={"k" * 100_000: 1})
    assert response.status_code == 400
    assert len(response.content) < 1000
