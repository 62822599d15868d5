"""The rows of kilt_grades.jsonl.gz, which make_kilt_grades.py made: odd answers, and what KILT's script gives them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["KiltRow", "kilt_rows"]

TABLE = Path(__file__).with_name("kilt_grades.jsonl.gz")


@dataclass(frozen=True)
class KiltRow:
    """A row: `kilt` and `retrieval` as make_kilt_grades.py orders them."""

    output: tuple[dict[str, Any], ...]
    answer: str
    pages: tuple[str, ...]
    kilt: tuple[float, ...] | None
    retrieval: tuple[float, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """The gold answers as they stand in the row."""
        return tuple(item["answer"] for item in self.output if item.get("answer") is not None)


@cache
def kilt_rows() -> tuple[KiltRow, ...]:
    """All 2,000."""
    rows = map(json.loads, gzip.decompress(TABLE.read_bytes()).decode().rstrip("\n").split("\n"))
    return tuple(
        KiltRow(
            tuple(row["output"]), row["answer"], tuple(row["pages"]),
            None if row["kilt"] is None else tuple(row["kilt"]), tuple(row["retrieval"]),
        )
        for row in rows
    )
