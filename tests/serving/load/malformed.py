"""Broken requests: each is refused as HTTP has it, or its connection closed, and those around it get their answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.serving.load.asking import Client, Tally, ask_all
from tests.serving.load.broken import Broken, broken
from tests.serving.load.scenarios import Subject, ended
from tests.serving.load.served import Served

__all__ = ["malformed"]

RECEIVE_TIMEOUT_S = 3.0
GIVES_UP_S = 120
"""The server ends a request by its deadline; a connection that is still open now is never ended."""
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def malformed(subject: Subject) -> dict[str, Any]:
    """So many broken requests as `subject.requests`; the questions of one client go on all the while."""
    truth = subject.truth()
    with subject.served(receive_timeout_s=RECEIVE_TIMEOUT_S) as served:
        found = _Found(served)

        async def all_of_it() -> Tally:
            seeds = iter(range(subject.requests))
            going, tally, end = True, Tally(), time.monotonic() + subject.seconds

            async def send() -> None:
                for seed in seeds:
                    if time.monotonic() > end:
                        break
                    await found.send(seed, broken(seed))

            async def ask() -> None:
                while going:
                    part = await ask_all(
                        lambda: Client(served.host, served.port), subject.questions, truth, clients=1, requests=10
                    )
                    tally.statuses += part.statuses
                    tally.faults += part.faults

            asking = asyncio.create_task(ask())
            await asyncio.gather(*(send() for _ in range(subject.clients)))
            going = False
            await asking
            return tally

        tally = asyncio.run(all_of_it())
        figures = ended(served, tally)
        figures["faults"] = found.faults + figures["faults"]
        return figures | {
            "sent": sum(sum(count.values()) for count in found.outcomes.values()),
            "broken": {kind: dict(count) for kind, count in sorted(found.outcomes.items())},
        }


class _Found:
    """What came of broken requests, by kind: statuses, and `closed` if there was no response."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._places = [str(Path(place).absolute()) for place in (served.bundle, served.store)]
        self.outcomes: dict[str, Counter[str]] = {}
        self.faults: list[str] = []

    async def send(self, seed: int, request: Broken) -> None:
        """Send it, and judge what comes back."""
        try:
            received = await asyncio.wait_for(self._exchange(request), GIVES_UP_S)
        except TimeoutError:
            self.faults.append(f"seed {seed} ({request.kind}): the connection is never ended")
            return
        statuses = [int(status) for status in STATUS.findall(received)]
        outcomes = self.outcomes.setdefault(request.kind, Counter())
        outcomes.update(map(str, statuses) if statuses else ["closed"])
        fault = None
        if not statuses and (received or not request.silence):
            fault = "no response"
        elif not set(statuses) <= request.allowed and not (request.kind == "pipelined" and statuses[0] == 200):
            fault = f"statuses {statuses}"
        elif any(place.encode() in received for place in self._places) or b"raceback" in received:
            fault = "a path of the host, or a traceback"
        elif statuses and statuses[-1] >= 400 and not self._is_error(received):
            fault = "an error that is not as ours are"
        if fault is not None:
            self.faults.append(f"seed {seed} ({request.kind}): {fault}: {request.sent[:300]!r} got {received[:300]!r}")

    async def _exchange(self, request: Broken) -> bytes:
        reader, writer = await asyncio.open_connection(self._served.host, self._served.port)
        with contextlib.suppress(OSError):  # what the server sent before it hung up is there to be read
            writer.write(request.sent)
            await writer.drain()
            if request.hangs_up:
                writer.write_eof()
        received = bytearray()
        with contextlib.suppress(OSError):
            while new := await reader.read(1 << 16):
                received += new
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return bytes(received)

    @staticmethod
    def _is_error(received: bytes) -> bool:
        head, _, body = received[received.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
        if not body:
            return head.startswith(b"HTTP/1.1 4")  # to HEAD
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return False
        return set(error) == {"type", "message", "request_id"} and len(body) < 20_000
