"""JSONL: an object a line with `id`, `text` and optionally `title` and `wikipedia_id`; other keys are ignored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from exporter.memory.corpus.lines import read_lines
from exporter.memory.corpus.record import Digest, Place, Record, passage_from_row
from runtime.contract import CorpusError

__all__ = ["read_jsonl"]

FIX = "repair the line"


def read_jsonl(path: Path, start: Place, digest: Digest | None, *, compressed: bool) -> Iterator[Record]:
    """One record a line; blank lines are skipped. Raises CorpusError with the line's number."""
    for line in read_lines(path, start, digest, compressed=compressed):
        if line.text.isspace():
            continue
        subject = f"corpus {path}, line {line.place.number}"
        try:
            row = json.loads(line.text)
        except (ValueError, RecursionError) as reason:
            raise CorpusError(subject, expected="a JSON object", found=str(reason), fix=FIX) from None
        if not isinstance(row, dict):
            raise CorpusError(subject, expected="a JSON object", found=type(row).__name__, fix=FIX)
        yield Record(line.place, passage_from_row(row, subject=subject, fix=FIX))
