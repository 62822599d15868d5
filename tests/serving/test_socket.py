"""What arrives on a socket: bytes that are no HTTP, requests that come too slowly, and connections that are kept."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from threading import Event, Thread

import psutil
import pytest
import uvicorn

from glimmer_export.runtime.serving import Service, create_app, settings_from
from glimmer_export.runtime.serving.log import Lines
from glimmer_export.runtime.serving.protocol import protocol_with_deadline
from glimmer_export.runtime.serving.server import listening_socket
from tests.exported import QUESTIONS
from tests.serving.conftest import BUNDLE, STORE

LONG_S = 60
DEADLINE_S = 0.4


@pytest.fixture(scope="module")
def address(session) -> Iterator[tuple[str, int]]:
    """A server that takes a request only if it arrives soon."""
    service = Service.of(session, settings_from({"bundle": BUNDLE, "store": STORE}))
    config = uvicorn.Config(
        create_app(service), http=protocol_with_deadline(DEADLINE_S, service.refused), ws="none", lifespan="on",
        log_config=None, timeout_graceful_shutdown=1, timeout_keep_alive=1,
    )
    server = uvicorn.Server(config)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        assert service.worker.is_warm.wait(LONG_S)
        yield listening.getsockname()
        server.should_exit = True
        thread.join(LONG_S)
        assert not thread.is_alive()


def test_no_part_of_an_answer_waits_for_an_acknowledgement():
    with closing(listening_socket("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def exchange(address, *parts: bytes) -> bytes:
    """Send these, and read until the server closes the connection."""
    with socket.create_connection(address, timeout=LONG_S) as connection:
        for part in parts:
            connection.sendall(part)
        return read_all(connection)


def read_all(connection) -> bytes:
    received = b""
    while part := connection.recv(1 << 16):
        received += part
    return received


def request(body: bytes = b'{"question": "w1"}', *headers: bytes, length: int | None = None) -> bytes:
    lines = [
        b"POST /v1/answer HTTP/1.1", b"Host: localhost", b"Content-Type: application/json",
        b"Content-Length: %d" % (len(body) if length is None else length), *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def status(received: bytes) -> int:
    assert received.startswith(b"HTTP/1.1 "), received
    return int(received[9:12])


def test_a_request_over_a_socket(address):
    received = exchange(address, request(b'{"question": "w1"}', b"Connection: close"))
    assert status(received) == 200
    assert json.loads(received.partition(b"\r\n\r\n")[2])["question"] == "w1"


NOT_HTTP = [
    b"\r\n\r\n\r\n\r\nhello\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET /none HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n",
    b"GET /\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    request(b"", b"Content-Length: 5"), request(b"", b"Transfer-Encoding: gzip"),
    b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    (
        b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnot a size\r\n"
    ),
    b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
]


@pytest.mark.parametrize("sent", NOT_HTTP, ids=lambda sent: repr(sent[:50]))
def test_what_is_no_http_is_refused_in_json(address, sent, caplog):
    received = exchange(address, sent)
    assert 400 <= status(received) < 500
    assert b"content-type: application/json" in received.lower()
    assert json.loads(received.rpartition(b"\r\n\r\n")[2])["error"]["type"]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/ans", request(b'{"question"', length=100), b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"],
    ids=["nothing", "half a line", "half a body", "half the headers"],
)
def test_a_request_that_does_not_arrive_is_408(address, sent):
    received = exchange(address, sent)
    assert status(received) == 408
    assert json.loads(received.rpartition(b"\r\n\r\n")[2])["error"]["type"] == "TooSlow"


@pytest.mark.parametrize(
    ("sent", "refusal"), [(b"no HTTP\r\n\r\n", 400), (b"POST /v1/ans", 408), (b"X" * 100_000, 431)], ids=[400, 408, 431]
)
def test_what_is_refused_has_an_id_that_the_log_has_too(address, sent, refusal, caplog):
    caplog.set_level("INFO", "glimmer_export.runtime.serving.access")
    head, _, body = exchange(address, sent).partition(b"\r\n\r\n")
    assert status(head) == refusal
    request_id = json.loads(body)["error"]["request_id"]
    assert f"x-request-id: {request_id}" in head.decode().lower().split("\r\n")
    logged = [json.loads(Lines().format(record)) for record in caplog.records if record.message == "refused"]
    assert [(line["request_id"], line["status"]) for line in logged] == [(request_id, refusal)]


def test_a_further_request_on_a_connection_has_a_deadline_of_its_own(address):
    with socket.create_connection(address, timeout=LONG_S) as connection:
        connection.sendall(request())
        received = b""
        while b"content-length" not in received.lower() or len(received) < whole(received):
            received += connection.recv(1 << 16)
        assert status(received) == 200
        connection.sendall(b"GET /hea")
        assert status(read_all(connection)) == 408


def whole(received: bytes) -> int:
    """How many bytes a response has, by its headers."""
    head, _, _ = received.partition(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return len(head) + 4 + int(length.partition(b":")[2])


def test_an_answer_may_take_longer_than_its_request(address, session, monkeypatch):
    real, waited = session.answer_many, []

    def slowly(*arguments, **options):
        asyncio.run(asyncio.sleep(2 * DEADLINE_S))
        waited.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(session, "answer_many", slowly)
    assert status(exchange(address, request(b'{"question": "w1"}', b"Connection: close"))) == 200
    assert waited


def test_requests_that_come_together_are_answered_in_their_order(address):
    bodies = [json.dumps({"question": question}).encode() for question in QUESTIONS[:3]]
    sent = b"".join(map(request, bodies)) + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = exchange(address, sent)
    places = [received.index(f'"question":"{question}"'.encode()) for question in QUESTIONS[:3]]
    assert places == sorted(places)
    assert received.endswith(b'{"status":"ok"}')


def test_a_body_that_is_too_large_is_not_read_to_its_end(address):
    received = exchange(address, request(b" " * 1000, length=1 << 40))
    assert status(received) == 413


LARGE = {
    "in one piece": [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"],
    "in pieces": [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", *[b"X: " + b"x" * 1000 + b"\r\n"] * 20, b"\r\n"],
    "a path": [b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    "many headers": [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"".join(b"X%d: y\r\n" % item for item in range(5000)),
        b"\r\n",
    ],
    "behind another": [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nX: " + b"x" * 100_000],
}


@pytest.mark.parametrize("name", LARGE)
def test_a_head_is_bounded_however_it_comes(address, name, caplog):
    received = exchange(address, *LARGE[name])
    if name == "behind another":
        assert status(received) == 200
        received = received[whole(received) :]
    assert status(received) == 431
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["type"] == "HeadTooLarge"
    assert "Traceback" not in caplog.text


REFUSED = {
    413: request(b"", length=1 << 40), 400: b"no HTTP\r\n\r\n",
    403: request(b"{", b"Host: evil.example", length=1 << 19).replace(b"Host: localhost\r\n", b""),
}


@pytest.mark.parametrize("refusal", REFUSED)
def test_whoever_is_refused_while_still_sending_reads_why_and_is_not_reset(address, refusal):
    """If the system resets a connection, the client's drops the response that its program has not read yet."""
    with socket.create_connection(address, timeout=LONG_S) as connection:
        connection.sendall(REFUSED[refusal])
        connection.recv(1, socket.MSG_PEEK)  # refused by now
        for _ in range(30):
            connection.sendall(b" " * 100_000)
        assert status(read_all(connection)) == refusal


def test_whoever_goes_on_sending_is_let_go(address):
    def is_let_go() -> bool:
        try:
            connection.sendall(b" ")
        except ConnectionError:
            return True
        return False

    with socket.create_connection(address, timeout=LONG_S) as connection:
        connection.sendall(REFUSED[413])
        assert status(read_all(connection)) == 413
        assert not is_let_go()
        until(is_let_go)
    until(lambda: not connections_of(address))


@pytest.mark.parametrize(
    "begun", [request(b'{"question"', length=100), b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"],
    ids=["half a body", "half a line", "half the headers"],
)
def test_half_a_request_that_comes_together_with_a_whole_one_has_a_deadline(address, begun, caplog):
    received = exchange(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + begun)
    assert status(received) == 200
    assert status(received[whole(received) :]) == 408
    assert "Traceback" not in caplog.text


def test_a_client_that_does_not_read_its_answer_is_let_go(address):
    """Or it would hold the answer in memory for ever, and a server that is told to stop would wait for it."""
    text = "w1 " * 5000
    body = json.dumps({"question": ["w1"] * 64, "passages": [{"text": text, "id": name} for name in "abcd"]}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(LONG_S)
        connection.connect(address)
        connection.sendall(request(body))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        until(lambda: not connections_of(address))


def connections_of(address) -> list:
    """What the server has open."""
    held = psutil.Process().net_connections("tcp")
    return [item for item in held if item.laddr == address and item.status != psutil.CONN_LISTEN]


def until(condition) -> None:
    ticks = Event()
    for _ in range(100 * LONG_S):
        if condition():
            return
        ticks.wait(0.01)
    pytest.fail("it did not come about")
