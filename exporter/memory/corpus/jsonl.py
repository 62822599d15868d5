"""JSONL: an object a line with the fields of a passage, under our names or another collection's; others are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from glimmer_export.exporter.memory.corpus.lines import read_lines
from glimmer_export.exporter.memory.corpus.record import Digest, Place, Record, passage_from_row
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.contract.json_text import parse_json

__all__ = ["read_jsonl"]

FIX = "repair the line"
LINES = "write an object a line, as `jq -c '.[]' FILE` does"


def read_jsonl(path: Path, start: Place, digest: Digest | None, *, name: str) -> Iterator[Record]:
    """One record a line; blank lines are skipped. Raises CorpusError with the line's number."""
    for line in read_lines(path, start, digest, name=name):
        if line.text.isspace():
            continue
        subject = f"corpus {path}, line {line.place.number}"
        try:
            row = parse_json(line.text)
        except ValueError as reason:
            fix = LINES if line.text.lstrip().startswith("[") else FIX
            raise CorpusError(subject, expected="a JSON object", found=str(reason), fix=fix) from None
        if not isinstance(row, dict):
            fix = LINES if isinstance(row, list) else FIX
            raise CorpusError(subject, expected="a JSON object", found=type(row).__name__, fix=fix)
        yield Record(line.place, passage_from_row(row, subject=subject, fix=FIX))
