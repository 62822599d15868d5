"""Clients that ask, each for itself, and hold every answer to the one that `Session.answer` gives."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime import Session

__all__ = [
    "NATS", "Client", "Expected", "LeftError", "Stream", "Tally", "Truth", "ask_all", "expected_of", "read_questions",
    "seen",
]

NATS = TOLERANCES["log_probability"].atol
"""A question that shares its batch is padded to another length."""
RECEIVE_S = 300
IDLE_S = 10
"""A connection that has been idle for longer is not used again: the server may be closing it."""
Expected = dict[str, dict[str, Any]]
"""By question, all that a server says of it but the times."""


def read_questions(path: Path) -> list[str]:
    """The different ones of a file of JSON lines, in its order."""
    rows = path.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(json.loads(row)["question"] for row in rows))


def expected_of(session: Session, questions: Sequence[str]) -> Expected:
    """What each is answered alone."""
    return {question: seen(session.answer(question).to_dict()) for question in questions}


@dataclass
class Truth:
    """What is answered from each generation of a store that there has been; all before `served` are no longer.

    `exact` is whether an answer's words must be those; otherwise only its question and passages, and they are counted.
    """

    generations: list[Expected]
    served: int = 0
    exact: bool = True


def seen(answer: dict[str, Any]) -> dict[str, Any]:
    """What must be equal: the answer, and each passage with whether it was read; and how likely it was."""
    passages = [(item["rank"], item["id"], item["title"], item["text"], item["read"]) for item in answer["passages"]]
    return {
        "question": answer["question"], "answer": answer["answer"], "passages": passages,
        "log_probability": answer["log_probability"],
    }


def differs(found: dict[str, Any], expected: dict[str, Any], *, exact: bool = True) -> bool:
    """Whether it is another answer; or, if it need not be exact, to another question or from other passages."""
    if not exact:
        return any(found[name] != expected[name] for name in ("question", "passages"))
    close = abs((found["log_probability"] or 0.0) - (expected["log_probability"] or 0.0)) <= NATS
    return not close or any(found[name] != expected[name] for name in ("question", "answer", "passages"))


@dataclass
class Tally:
    """What came of requests: statuses, and everything that must not be."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    """Ids of requests whose connection ended before a response had begun."""
    taken: dict[str, int] = field(default_factory=dict)
    """Statuses by request id."""
    other_words: int = 0
    """Answers that differ from those expected, where they may."""

    def check(
        self, request_id: str, question: str, response: Response, alternatives: Sequence[Expected], *, exact: bool
    ) -> None:
        """Count a response; it may be the answer of any of the alternatives, of this question, or a refusal."""
        self.statuses[response.status] += 1
        self.taken[request_id] = response.status
        if response.headers.get("x-request-id") != request_id:
            self.faults.append(f"{request_id}: crossed with {response.headers.get('x-request-id')}")
        content = json.loads(response.body)
        if response.status == 429 and int(response.headers.get("retry-after", "0")) < 1:
            self.faults.append(f"{request_id}: 429 without Retry-After")
        if response.status != 200:
            if set(content) != {"error"} or content["error"]["request_id"] != request_id:
                self.faults.append(f"{request_id}: {response.status} is no error of ours: {content}")
            return
        found = seen(content)
        others = [expected[question] for expected in alternatives]
        self.other_words += all(differs(found, other) for other in others)
        if all(differs(found, other, exact=exact) for other in others):
            self.faults.append(f"{request_id}: {question!r} got {found['question']!r}: {found['answer']!r}")


@dataclass(frozen=True)
class Response:
    """A whole one."""

    status: int
    headers: dict[str, str]
    body: bytes


class LeftError(Exception):
    """The server has closed the connection; `begun`: in the midst of a response."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


class Client:
    """One client, by httpx, with a connection that it keeps."""

    def __init__(self, host: str, port: int) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"http://{host}:{port}", timeout=RECEIVE_S,
            limits=httpx.Limits(keepalive_expiry=IDLE_S),
        )

    async def ask(self, question: str, request_id: str) -> Response:
        """Post one question; raises LeftError."""
        try:
            found = await self._client.post(
                "/v1/answer", json={"question": question}, headers={"x-request-id": request_id}
            )
        except httpx.TransportError as error:
            begun = "incomplete" in str(error) or "without sending complete" in str(error)
            raise LeftError(repr(error), begun=begun) from error
        return Response(found.status_code, dict(found.headers), found.content)

    async def close(self) -> None:
        """Let the connection go."""
        await self._client.aclose()


class Stream:
    """One client, by asyncio alone: it takes a tenth of httpx's time, which the server can use."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def ask(self, question: str, request_id: str) -> Response:
        """Post one question; raises LeftError."""
        body = json.dumps({"question": question}).encode()
        head = (
            f"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        begun = False
        if time.monotonic() - self._used > IDLE_S:
            await self.close()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            writer.write(head.encode() + body)
            first = await reader.readuntil(b"\r\n")
            begun = True
            rest = await reader.readuntil(b"\r\n\r\n")
            pairs = (line.partition(":") for line in rest.decode("latin-1").splitlines() if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            content = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            begun = begun or bool(getattr(error, "partial", b""))
            await self.close()
            raise LeftError(repr(error), begun=begun) from error
        self._used = time.monotonic()
        if headers.get("connection") == "close":
            await self.close()
        return Response(int(first.split()[1]), headers, content)

    async def close(self) -> None:
        """Let the connection go."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def ask_all(
    make: Callable[[], Client | Stream], questions: Sequence[str], truth: Truth, *, clients: int, requests: int,
    seconds: float = math.inf, after: Callable[[int], Awaitable[None]] | None = None, until_left: bool = False,
) -> Tally:
    """Have so many clients ask so many questions between them, each its next as soon as it has its last answer.

    An answer must be that of a generation which was served at some time between request and response. After `seconds`
    none asks any more. `after` is awaited with the number of requests done. With `until_left`, a client whose
    connection is closed asks no more; otherwise that is a fault.
    """
    tally, numbers, done, end = Tally(), itertools.count(), itertools.count(1), time.monotonic() + seconds

    async def one(name: int) -> None:
        client = make()
        try:
            while (number := next(numbers)) < requests and time.monotonic() < end:
                question, request_id = questions[number % len(questions)], f"c{name}-r{number}"
                oldest = truth.served
                try:
                    response = await client.ask(question, request_id)
                except LeftError as error:
                    if error.begun or not until_left:
                        tally.faults.append(f"{request_id}: {error}")
                    tally.unanswered.append(request_id)
                    if until_left:
                        return
                    continue
                tally.check(request_id, question, response, truth.generations[oldest:], exact=truth.exact)
                if after is not None:
                    await after(next(done))
        finally:
            await client.close()

    await asyncio.gather(*(one(name) for name in range(clients)))
    return tally
