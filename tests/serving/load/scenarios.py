"""What a server is put through: each gives figures, and under `faults` everything that must not have happened."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from glimmer_export.runtime import Session
from tests.serving.load.asking import Client, Stream, Tally, Truth, ask_all, expected_of
from tests.serving.load.served import Served

__all__ = ["SCENARIOS", "Subject", "ended", "log_faults"]

KILLED = """
import json, socket, sys, time
sockets = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(8)]
body = json.dumps({"question": sys.argv[3]}).encode()
for number, each in enumerate(sockets):
    each.sendall(b"POST /v1/answer HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\n"
                 b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body[: len(body) - number % 2])
print("sent", flush=True)
time.sleep(600)
"""
"""A process of eight clients, of which every other has not yet sent its last byte."""


@dataclass(frozen=True)
class Subject:
    """What is served, and what it is asked."""

    bundle: Path
    store: Path
    questions: Sequence[str]
    clients: int = 64
    requests: int = 20_000
    seconds: float = math.inf
    """After these, no further request is begun: a busy machine has done fewer by then."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of `glimmer-export serve`, in the place of what a scenario chooses."""
    cross_encoder: Path | None = None
    """Where that of `rerank` is, or is to be written."""

    @property
    def threads(self) -> int:
        """Of one graph run, here and in the server."""
        return int(self.options.get("threads", 1))

    def served(self, **chosen: object) -> Served:
        """A server of it, warmed up."""
        return Served(self.bundle, self.store, **(chosen | self.options))

    async def ask(
        self, client: type[Client | Stream], served: Served, truth: Truth,
        after: Callable[[int], Awaitable[None]] | None = None,
    ) -> Tally:
        """Have its clients ask."""
        return await ask_all(
            partial(client, served.host, served.port), self.questions, truth, clients=self.clients,
            requests=self.requests, seconds=self.seconds, after=after,
        )

    def truth(self) -> Truth:
        """What a session of this process answers."""
        with Session.open(self.bundle, self.store, threads=self.threads) as session:
            return Truth([expected_of(session, self.questions)])


def answers(subject: Subject) -> dict[str, Any]:
    """Every request is answered, with its own answer."""
    truth = subject.truth()
    with subject.served() as served:
        began, cpu, own = time.perf_counter(), served.cpu_seconds, time.process_time()
        tally = asyncio.run(subject.ask(Client, served, truth))
        seconds, done = time.perf_counter() - began, sum(tally.statuses.values())
        figures = {
            "seconds": round(seconds, 1), "requests_per_second": round(done / seconds, 1),
            "server_cpu_ms_per_request": round(1e3 * (served.cpu_seconds - cpu) / done, 2),
            "clients_cpu_ms_per_request": round(1e3 * (time.process_time() - own) / done, 2),
            "questions_per_batch": round(
                served.metric("glimmer_batch_questions_sum") / served.metric("glimmer_batch_questions_count"), 2
            ),
        }
        _only(tally, {200})
        return ended(served, tally) | figures


def overload(subject: Subject) -> dict[str, Any]:
    """More clients than may wait: each gets its own answer or 429, and none is lost."""
    truth = subject.truth()
    with subject.served(max_queue=8) as served:
        tally = asyncio.run(subject.ask(Stream, served, truth))
        _only(tally, {200, 429})
        if not tally.statuses[429]:
            tally.faults.append("nothing was refused: it was no overload")
        alone = httpx.post(f"{served.url}/v1/answer", json={"question": subject.questions[0]}, timeout=60)
        if alone.status_code != 200:
            tally.faults.append(f"after the overload, one question gets {alone.status_code}")
        return ended(served, tally)


def leaving(subject: Subject) -> dict[str, Any]:
    """Clients that hang up at any time, or are killed: the others get their answers, and nothing is left behind."""
    truth, chance = subject.truth(), random.Random(1)
    with subject.served() as served:
        left = killed = 0

        async def leave(_done: int) -> None:
            nonlocal left, killed
            if chance.random() < 0.5:
                await asyncio.to_thread(_hang_up, served, chance.choice(subject.questions), chance.random())
                left += 1
            elif chance.random() < 0.02:
                await asyncio.to_thread(_kill_clients, served, subject.questions[0])
                killed += 8

        tally = asyncio.run(subject.ask(Stream, served, truth, after=leave))
        _only(tally, {200})
        _until(lambda: served.metric("glimmer_queue_questions") == 0, "questions wait that nobody asks", tally)
        _until(lambda: served.num_connections == 0, "connections are open that nobody has", tally)
        return ended(served, tally) | {"clients_that_left": left, "clients_killed": killed}


def refresh(subject: Subject) -> dict[str, Any]:
    """The store is changed, and the server told, again and again: each answer is of a generation served meanwhile."""
    from glimmer_export.exporter.memory import append_passages, delete_passages

    with tempfile.TemporaryDirectory() as folder, Session.open(subject.bundle, subject.store, threads=1) as first:
        store, corpus = Path(folder, "store"), Path(folder, "corpus.jsonl")
        shutil.copytree(subject.store, store)
        truth = Truth([expected_of(first, subject.questions)])
        read = [item for question in subject.questions for item in first.answer(question).read_passages]
        passages = {item.passage.id: item.passage for item in read[: max(1, len(read) // 2)]}
        rows = [{"id": item.id, "title": item.title, "text": item.text} for item in passages.values()]
        corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

        def change() -> None:
            if len(truth.generations) % 2:
                delete_passages(store, list(passages))
            else:
                append_passages(store, subject.bundle, corpus, threads=1)
            with Session.open(subject.bundle, store, threads=1) as newest:
                truth.generations.append(expected_of(newest, subject.questions))
            told = httpx.post(f"{served.url}/v1/refresh", timeout=60).json()
            if told != {"changed": True, "generation": len(truth.generations) - 1}:
                faults.append(f"refresh said {told}")
            truth.served = len(truth.generations) - 1

        faults: list[str] = []
        with replace(subject, store=store).served() as served:
            every = max(10, subject.requests // 8)

            changing = asyncio.Lock()

            async def after(done: int) -> None:
                if done % every == 0 and done < subject.requests:
                    async with changing:
                        await asyncio.to_thread(change)

            tally = asyncio.run(subject.ask(Stream, served, truth, after=after))
            _only(tally, {200})
            tally.faults += faults
            changed = [
                sum(one[question] != other[question] for question in subject.questions)
                for one, other in zip(truth.generations, truth.generations[1:], strict=False)
            ]
            if not all(changed):
                tally.faults.append("a change of the store changed no answer, and would not have been seen")
            return ended(served, tally) | {
                "generations": len(truth.generations), "answers_changed_by_each": changed,
                "questions": len(subject.questions),
            }


def memory(subject: Subject) -> dict[str, Any]:
    """Memory of the server over many requests."""
    truth, samples = subject.truth(), {}
    with subject.served() as served:
        every = max(1, min(1000, subject.requests // 20))

        async def after(done: int) -> None:
            if done % every == 0:
                samples[done] = round(served.rss_bytes / 2**20, 1)

        tally = asyncio.run(subject.ask(Stream, served, truth, after=after))
        _only(tally, {200})
        return ended(served, tally) | {"rss_mib_by_requests": samples}


def stopping(subject: Subject) -> dict[str, Any]:
    """SIGTERM in the midst of requests, at a random time: what the server took, it answered, and its exit code is 0."""
    truth, chance, whole, rounds = subject.truth(), random.Random(2), Tally(), []
    for number in range(max(2, subject.requests // 200)):
        with subject.served() as served:

            async def stop(done: int, served: Served = served, at: int = chance.randint(1, 200)) -> None:
                if done == at:
                    served.tell_to_stop()

            tally = asyncio.run(
                ask_all(partial(Stream, served.host, served.port), subject.questions, truth, clients=subject.clients,
                        requests=1 << 30, after=stop, until_left=True)
            )
            code = served.stop()
            logged = served.answered()
            lost = [item for item in tally.unanswered if logged.get(item) == 200]
            whole.faults += [f"round {number}: {item} was answered, and its client has no answer" for item in lost]
            whole.faults += [f"round {number}: {item}" for item in tally.faults]
            whole.faults += [f"round {number}: {item}" for item in log_faults(served)]
            if code:
                whole.faults.append(f"round {number}: exit code {code}")
            whole.statuses += tally.statuses
            rounds.append({"answered": tally.statuses[200], "not_taken": len(tally.unanswered)})
    _only(whole, {200, 503})
    return {"statuses": dict(whole.statuses), "rounds": rounds, "faults": whole.faults}


def latency(subject: Subject) -> dict[str, Any]:
    """One client beside `Session.answer` in the client's process, taking turns; medians, and CPU time of either."""
    truth = subject.truth().generations[0]
    direct_ms, served_ms, faults = [], [], []
    with Session.open(subject.bundle, subject.store, threads=subject.threads) as session, \
            subject.served() as served:
        session.warm_up()
        connection = http.client.HTTPConnection(served.host, served.port, timeout=60)
        cpu, direct_cpu = served.cpu_seconds, 0.0
        end = time.monotonic() + subject.seconds
        for number in range(subject.requests):
            if time.monotonic() > end:
                break
            question = subject.questions[number % len(subject.questions)]
            own, began = time.process_time(), time.perf_counter()
            session.answer(question)
            direct_ms.append(1e3 * (time.perf_counter() - began))
            direct_cpu += time.process_time() - own
            began = time.perf_counter()
            body = json.dumps({"question": question})
            connection.request("POST", "/v1/answer", body, {"Content-Type": "application/json"})
            found = json.loads(connection.getresponse().read())
            served_ms.append(1e3 * (time.perf_counter() - began))
            if found["answer"] != truth[question]["answer"]:
                faults.append(f"{question!r} got {found['answer']!r}")
        server_cpu = served.cpu_seconds - cpu
        connection.close()
        faults += log_faults(served)
    return {
        "asked": len(served_ms),
        "session_p50_ms": round(median(direct_ms), 2), "server_p50_ms": round(median(served_ms), 2),
        "difference_of_p50_ms": round(median(served_ms) - median(direct_ms), 2),
        "session_cpu_ms": round(1e3 * direct_cpu / len(direct_ms), 2),
        "server_cpu_ms": round(1e3 * server_cpu / len(served_ms), 2),
        "faults": faults,
    }


SCENARIOS: dict[str, Callable[[Subject], dict[str, Any]]] = {
    scenario.__name__: scenario for scenario in (answers, overload, leaving, refresh, memory, stopping, latency)
}


def _hang_up(served: Served, question: str, chance: float) -> None:
    """Send a request, or part of one, and go: by a FIN or a RST, at once or a little later."""
    body = json.dumps({"question": question, "stream": chance > 0.7}).encode()
    head = b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sent = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection((served.host, served.port)) as connection:
        connection.sendall(sent[: int(len(sent) * min(1.0, 2 * chance))])
        time.sleep(0.02 * (chance * 7 % 1))
        if chance * 3 % 1 < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _kill_clients(served: Served, question: str) -> None:
    command = [sys.executable, "-c", KILLED, served.host, str(served.port), question]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()


def _only(tally: Tally, allowed: set[int]) -> None:
    others = {status: count for status, count in tally.statuses.items() if status not in allowed}
    if others:
        tally.faults.append(f"statuses {others}")


def ended(served: Served, tally: Tally) -> dict[str, Any]:
    """Figures of a tally, once the server has been stopped and its log looked through."""
    if code := served.stop():
        tally.faults.append(f"exit code {code}")
    return {"statuses": dict(tally.statuses), "faults": tally.faults + log_faults(served)}


def log_faults(served: Served) -> list[str]:
    """What the log of a server has that must not be there."""
    return [f"log: {json.dumps(record)[:2000]}" for record in served.remarks()]


def _until(condition: Callable[[], bool], otherwise: str, tally: Tally) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    tally.faults.append(otherwise)
