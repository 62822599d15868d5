"""How a shard went, as a line of JSON: what crosses from a worker to the process that asked."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from glimmer_export.exporter.memory.work import ShardRecord
from glimmer_export.runtime.contract import GlimmerError, StoreError, errors
from glimmer_export.runtime.contract.records import record_from_json

__all__ = ["failed", "finished", "is_failure", "read_outcome"]

ERROR_PARTS = ("subject", "expected", "found", "fix")


def finished(index: int, record: ShardRecord) -> str:
    """The line for a shard that is in place."""
    return json.dumps({"index": index, "record": dataclasses.asdict(record)})


def failed(error: GlimmerError) -> str:
    """The line for a named error."""
    return json.dumps({"error": type(error).__name__, **{part: getattr(error, part) for part in ERROR_PARTS}})


def is_failure(line: str) -> bool:
    """Whether the line tells of an error."""
    return "error" in json.loads(line)


def read_outcome(line: str) -> tuple[int, ShardRecord]:
    """A shard's index and record; raises the error that the line tells of, as it was raised there."""
    data: dict[str, Any] = json.loads(line)
    if "error" in data:
        kind: type[GlimmerError] = getattr(errors, data["error"])
        subject, expected, found, fix = (data[part] for part in ERROR_PARTS)
        raise kind(subject, expected=expected, found=found, fix=fix)
    record = record_from_json(ShardRecord, data["record"], error=StoreError, subject="record", fix="start again")
    return data["index"], record
