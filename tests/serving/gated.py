"""A session whose batches wait until a test lets them go, so that what happens meanwhile is no matter of luck."""

from __future__ import annotations

from threading import Event
from typing import Any

from glimmer_export.runtime import Session

__all__ = ["Gated"]

LONG_S = 60
"""No test waits for so long unless something is broken."""


class Gated:
    """A session, but that a batch is answered only while the gate is open; `batches` are those that came to it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.gate, self.entered = Event(), Event()
        self.batches: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def answer_many(self, questions, *arguments: Any, **options: Any) -> Any:
        self._wait(questions)
        return self._session.answer_many(questions, *arguments, **options)

    def rank_many(self, questions, *arguments: Any, **options: Any) -> Any:
        self._wait(questions)
        return self._session.rank_many(questions, *arguments, **options)

    def _wait(self, questions) -> None:
        self.batches.append(list(questions))
        self.entered.set()
        assert self.gate.wait(LONG_S)
