"""A search on disk: a line of JSON for the plan and for every event, so that the same command goes on where it stopped.

    OUT/journal.jsonl

A line that a killed command had half written is dropped. A journal of another plan is refused, with what differs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glimmer_export.exporter.files.links import require_no_link_below
from glimmer_export.exporter.files.whole_file import held_alone, replace_file, write_errors
from glimmer_export.runtime.contract import OutputError, is_there
from glimmer_export.runtime.contract.files import open_file

__all__ = ["JOURNAL", "Event", "Journal", "open_journal"]

JOURNAL = "journal.jsonl"
FORMAT, VERSION = "glimmer-export-tune", 1
MAX_BYTES = 1 << 30
OURS = frozenset({JOURNAL, "search.jsonl", "held-out.jsonl", "corpus.jsonl", "parts", "bundle", "store", "report.json",
                  "report.html"})
"""What a search writes into its folder."""
Event = dict[str, Any]


class Journal:
    """The events so far, in their order; `seconds` is what all runs of the search took together."""

    def __init__(self, path: Path, events: list[Event]) -> None:
        self._path, self.events = path, events
        self._before = sum(float(event.get("seconds", 0.0)) for event in events)
        self._begun = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of this run and those before it."""
        return self._before + time.monotonic() - self._begun

    def append(self, event: Mapping[str, Any]) -> Event:
        """Write an event, and have it on the disk; raises OSError."""
        now = time.monotonic()
        written = {**event, "seconds": round(now - self._last, 3)}
        self._last = now
        with self._path.open("ab") as stream:
            stream.write(json.dumps(written).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.events.append(written)
        return written

    def replay(self, apply: Callable[[Event], None]) -> None:
        """Hand over every event; raises OutputError for one that says nothing that could be."""
        for event in self.events:
            try:
                apply(event)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                found = f"an event {event['event']!r} that is none: {type(error).__name__} {error}"
                raise _damaged(f"search {self._path.parent}", found) from None

    def of_kind(self, kind: str) -> Iterator[Event]:
        """The events of a kind, in their order."""
        return (event for event in self.events if event["event"] == kind)

    def first(self, kind: str) -> Event | None:
        """The first event of a kind; None if there is none."""
        return next(self.of_kind(kind), None)


@contextmanager
def open_journal(folder: Path, plan: Mapping[str, Any], *, restart: bool = False) -> Iterator[Journal]:
    """Begin a search in a folder, or go on with the one that is there; no other command may have it meanwhile.

    Raises OutputError for a folder of something else, for the journal of another plan, a damaged one, a link, and where
    another command is at it. `restart` throws away what is there of a search.
    """
    path, subject = folder / JOURNAL, f"search {folder}"
    with write_errors(folder):
        require_no_link_below(folder.parent, folder.name, subject=subject)
        folder.mkdir(parents=True, exist_ok=True)
        strange = sorted(
            item.name for item in folder.iterdir() if item.name not in OURS and not item.name.startswith(".")
        )
        if strange or (any(folder.iterdir()) and not is_there(path)):
            found = strange[0] if strange else min(item.name for item in folder.iterdir())
            raise OutputError(
                f"directory {folder}", expected="the work of a search, or nothing", found=found, fix="name another: -o"
            )
        require_no_link_below(folder, JOURNAL, subject=subject)
        if restart or not is_there(path):
            replace_file(path, json.dumps({"format": FORMAT, "version": VERSION, "plan": dict(plan)}).encode() + b"\n")
        with held_alone(path) as alone:
            if not alone:
                raise OutputError(
                    subject, expected="no other command that searches there", found="one that does",
                    fix="wait until it ends, or name another: -o",
                )
            yield Journal(path, _events(path, plan, subject))


def _events(path: Path, plan: Mapping[str, Any], subject: str) -> list[Event]:
    with open_file(path) as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _damaged(subject, f"more than {MAX_BYTES} bytes")
    whole, _, torn = content.rpartition(b"\n")
    if torn:
        replace_file(path, whole + b"\n")
    try:
        head, *events = [json.loads(line) for line in whole.splitlines()]
        sound = all(isinstance(event, dict) and isinstance(event.get("event"), str) for event in events)
        sound = sound and all(isinstance(event.get("seconds", 0.0), (int, float)) for event in events)
        known = head.get("format") == FORMAT and isinstance(head.get("plan"), dict)
    except (ValueError, AttributeError, RecursionError) as error:
        raise _damaged(subject, f"a line that is none of it: {error}") from None
    if not known or not sound:
        raise _damaged(subject, "lines that are none of it")
    if head.get("version") != VERSION:
        raise _damaged(subject, f"version {head.get('version')!r}")
    earlier: dict[str, Any] = head["plan"]
    for name, asked in json.loads(json.dumps(dict(plan))).items():
        if earlier.get(name) != asked:
            raise OutputError(
                subject, expected=f"{name} {asked}, as asked for"[:160], found=str(earlier.get(name))[:160],
                fix="give it what it began with, name another: -o, or throw this search away: --restart",
            )
    return events


def _damaged(subject: str, found: str) -> OutputError:
    return OutputError(
        subject, expected=f"its journal, version {VERSION}", found=found, fix="throw this search away: --restart"
    )
