"""What waits: overload, deadlines, clients that leave, answers that go to whom they belong, and the end."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from glimmer_export.runtime import DeviceLostError, NotFiniteError, Session
from glimmer_export.runtime.serving import serve, settings_from
from glimmer_export.runtime.serving.batching import Work
from glimmer_export.runtime.serving.exchange import Asked, ClientLeftError
from tests.exported import QUESTIONS
from tests.serving.conftest import BUNDLE, STORE, serving
from tests.serving.gated import LONG_S, Gated


@pytest.fixture
def gated(session):
    found = Gated(session)
    yield found
    found.gate.set()


@pytest.fixture
def clients():
    """Threads that each ask for themselves."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def ask(client, question=QUESTIONS[0], **options):
    return client.post("/v1/answer", json={"question": question, **options})


def until(condition) -> None:
    """Wait for what other threads are sure to bring about."""
    ticks = threading.Event()
    for _ in range(100 * LONG_S):
        if condition():
            return
        ticks.wait(0.01)
    pytest.fail("it did not come about")


def test_a_full_queue_is_429_and_the_others_get_their_answers(gated, clients, session):
    with serving(gated, max_queue=2) as (client, service):
        first = clients.submit(ask, client, QUESTIONS[0])
        assert gated.entered.wait(LONG_S)
        waiting = [clients.submit(ask, client, question) for question in QUESTIONS[1:3]]
        until(lambda: len(service.worker._line) == 2)
        refused = ask(client, QUESTIONS[3])
        gated.gate.set()
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "TooManyRequests"
        assert int(refused.headers["retry-after"]) >= 1
        for question, asked in zip(QUESTIONS[:3], [first, *waiting], strict=True):
            assert asked.result(LONG_S).json()["answer"] == session.answer(question).answer
        assert ask(client, QUESTIONS[3]).status_code == 200


def test_more_questions_than_may_ever_wait_are_no_matter_of_time(session):
    with serving(session, max_queue=2) as (client, _):
        refused = ask(client, QUESTIONS[:3])
        assert refused.status_code == 400
        assert "retry-after" not in refused.headers
        assert "at most 2" in refused.json()["error"]["message"]
        assert ask(client, QUESTIONS[:2]).status_code == 200


def test_a_worker_that_ends_by_a_bug_ends_the_server(session, monkeypatch):
    """Or it would be ready for ever, and answer nothing."""
    stopped = threading.Event()
    with serving(session) as (client, service):
        service.worker.on_failure = stopped.set
        monkeypatch.setattr(service.worker, "_on_batch", lambda *_: 1 / 0)
        assert ask(client).status_code == 200
        assert stopped.wait(LONG_S)
        assert client.get("/readyz").status_code == 503
        assert isinstance(service.worker.failure, ZeroDivisionError)


def test_what_waits_together_is_one_batch_and_no_answer_is_crossed(gated, clients, session):
    with serving(gated) as (client, service):
        first = clients.submit(ask, client, QUESTIONS[0])
        assert gated.entered.wait(LONG_S)
        waiting = [clients.submit(ask, client, question) for question in QUESTIONS[1:]]
        until(lambda: len(service.worker._line) == len(QUESTIONS) - 1)
        gated.gate.set()
        answers = [asked.result(LONG_S).json() for asked in [first, *waiting]]
        assert [answer["question"] for answer in answers] == QUESTIONS
        assert [answer["answer"] for answer in answers] == [session.answer(item).answer for item in QUESTIONS]
        assert [len(batch) for batch in gated.batches] == [1, len(QUESTIONS) - 1]


def test_what_takes_too_long_is_504_and_is_not_answered_later(gated, clients):
    with serving(gated, timeout_s=0.3) as (client, _):
        first = clients.submit(ask, client, QUESTIONS[0])
        assert gated.entered.wait(LONG_S)
        for response in (ask(client, QUESTIONS[1]), first.result(LONG_S)):
            assert response.status_code == 504
            assert response.json()["error"]["type"] == "Timeout"
        gated.gate.set()
    assert gated.batches == [[QUESTIONS[0]]]


class Leaving:
    """A request whose client may leave; nothing else of it is looked at."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


def test_a_client_that_left_is_dropped_before_its_batch_starts(gated):
    async def told(service, request, question):
        return [item async for item in service.desk.ask(request, [Asked(question)], Work())]

    async def go(service):
        busy = asyncio.create_task(told(service, Leaving(), QUESTIONS[0]))
        await asyncio.to_thread(gated.entered.wait, LONG_S)
        leaves, stays = Leaving(), Leaving()
        left = asyncio.create_task(told(service, leaves, QUESTIONS[1]))
        stayed = asyncio.create_task(told(service, stays, QUESTIONS[2]))
        await asyncio.to_thread(until, lambda: len(service.worker._line) == 2)
        leaves.left.set()
        with pytest.raises(ClientLeftError):
            await left
        gated.gate.set()
        await asyncio.gather(busy, stayed)

    with serving(gated) as (_, service):
        asyncio.run(go(service))
    assert gated.batches == [[QUESTIONS[0]], [QUESTIONS[2]]]


def test_one_question_cannot_fail_those_that_share_its_batch(gated, clients, session, monkeypatch):
    real = session.answer_many

    def answer_many(questions, *arguments, **options):
        if QUESTIONS[2] in questions:
            raise NotFiniteError("graph", expected="numbers", found="NaN", fix="none")
        return real(questions, *arguments, **options)

    monkeypatch.setattr(session, "answer_many", answer_many)
    with serving(gated) as (client, service):
        first = clients.submit(ask, client, QUESTIONS[0])
        assert gated.entered.wait(LONG_S)
        waiting = [clients.submit(ask, client, question) for question in QUESTIONS[1:4]]
        until(lambda: len(service.worker._line) == 3)
        gated.gate.set()
        codes = [asked.result(LONG_S).status_code for asked in [first, *waiting]]
        assert codes == [200, 200, 500, 200]


def test_a_lost_device_ends_the_server(session, monkeypatch):
    def answer_many(*_, **options):
        raise DeviceLostError("GPU", expected="one that works", found="none", fix="start again")

    monkeypatch.setattr(session, "answer_many", answer_many)
    stopped = threading.Event()
    with serving(session) as (client, service):
        service.worker.on_failure = stopped.set
        assert ask(client).status_code == 500
        assert stopped.wait(LONG_S)
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_before_it_is_warm_it_lives_and_is_not_ready(session, monkeypatch):
    warm = threading.Event()
    monkeypatch.setattr(session, "warm_up", lambda: warm.wait(LONG_S))
    with serving(session, ready=False) as (client, service):
        assert client.get("/healthz").json() == {"status": "ok"}
        for response in (client.get("/readyz"), ask(client)):
            assert response.status_code == 503
            assert response.json()["error"]["type"] == "WarmingUp"
        warm.set()
        assert service.worker.is_warm.wait(LONG_S)
        assert client.get("/readyz").json() == {"status": "ready"}


@pytest.fixture
def running(gated, monkeypatch):
    """`serve` on a port of its own, in a thread; gives its URL and what stops it, as a signal would."""

    @contextmanager
    def run(**settings):
        monkeypatch.setattr(Session, "open", lambda *_, **options: Opened(gated))
        found, began, stops = settings_from(settings, {"bundle": BUNDLE, "store": STORE, "port": 0}), [], []

        @contextmanager
        def stopping(stop):
            stops.append(stop)
            yield

        with ThreadPoolExecutor(1) as thread:
            ended = thread.submit(serve, found, began=began.append, stopping=stopping)
            try:
                until(lambda: began or ended.done())
                yield began[0], stops[0], ended
            finally:
                gated.gate.set()
                stops[0]()
                ended.result(LONG_S)

    return run


class Opened:
    """A session that another fixture closes."""

    def __init__(self, session) -> None:
        self._session = session

    def __enter__(self):
        return self._session

    def __exit__(self, *exception) -> None:
        pass


def test_a_stopped_server_finishes_what_is_in_flight(running, gated, clients, session):
    with running() as (url, stop, ended):
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        body = {"question": QUESTIONS[0]}
        being_answered = clients.submit(httpx.post, f"{url}/v1/answer", json=body, timeout=LONG_S)
        assert gated.entered.wait(LONG_S)
        waits = clients.submit(httpx.post, f"{url}/v1/answer", json={**body, "question": QUESTIONS[1]}, timeout=LONG_S)
        until(lambda: "glimmer_queue_questions 1.0" in httpx.get(f"{url}/metrics").text)
        stop()
        until(lambda: refuses(url))
        gated.gate.set()
        answers = [asked.result(LONG_S).json()["answer"] for asked in (being_answered, waits)]
        assert answers == [session.answer(question).answer for question in QUESTIONS[:2]]
        ended.result(LONG_S)


def test_a_server_that_is_told_twice_to_stop_ends_at_once_and_says_so(running, gated, clients, caplog):
    with running() as (url, stop, ended):
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        body = {"question": QUESTIONS[0]}
        waiting = clients.submit(httpx.post, f"{url}/v1/answer", json=body, timeout=LONG_S)
        assert gated.entered.wait(LONG_S)
        stop()
        until(lambda: refuses(url))
        assert not waiting.done()
        stop()
        refused = waiting.result(LONG_S)
        assert not gated.gate.is_set()
        ended.result(LONG_S)
    assert refused.status_code == 503
    assert refused.headers["connection"] == "close"
    assert refused.json()["error"]["type"] == "ShuttingDown"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_stream_that_is_under_way_says_that_the_server_ends(running, gated, clients, caplog, monkeypatch):
    begun, wait = threading.Event(), gated.answer_many

    def begin(questions, *arguments, on_token, **options):
        on_token(0, "some")
        begun.set()
        return wait(questions, *arguments, **options)

    monkeypatch.setattr(gated, "answer_many", begin)
    with running() as (url, stop, ended):
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        body = {"question": QUESTIONS[0], "stream": True}
        waiting = clients.submit(httpx.post, f"{url}/v1/answer", json=body, timeout=LONG_S)
        assert begun.wait(LONG_S)
        stop()
        stop()
        told = waiting.result(LONG_S).text
        ended.result(LONG_S)
    assert told.startswith('event: token\ndata: {"index":0,"text":"some"}\n\nevent: error\ndata: ')
    assert "ShuttingDown" in told
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_question_that_comes_while_the_server_ends_is_503(session):
    with serving(session) as (client, service):
        service.worker.stop()
        refused = ask(client)
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "ShuttingDown"
    assert refused.headers["connection"] == "close"


def refuses(url) -> bool:
    try:
        httpx.get(f"{url}/healthz")
    except httpx.TransportError:
        return True
    return False
