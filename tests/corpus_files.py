"""The same passages in every format of a corpus."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from glimmer_export.runtime.store import Passage

__all__ = ["HAS_ZSTD", "WRITERS", "ZSTD", "write_jsonl", "write_parquet", "write_tsv"]

ZSTD = ("jsonl.zst", "tsv.zst")
HAS_ZSTD = find_spec("backports") is not None and find_spec("backports.zstd") is not None


def write_jsonl(path: Path, passages: Sequence[Passage]) -> Path:
    names = _names(passages, "id", "title", "text")
    rows = ({name: getattr(passage, name) for name in names} for passage in passages)
    return _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_tsv(path: Path, passages: Sequence[Passage]) -> Path:
    """As DPR's scripts write it."""
    content = io.StringIO(newline="")
    writer = csv.writer(content, delimiter="\t")
    names = _names(passages, "id", "text", "title")
    writer.writerow(names)
    writer.writerows([getattr(passage, name) for name in names] for passage in passages)
    return _write(path, content.getvalue())


def write_parquet(path: Path, passages: Sequence[Passage], **options: Any) -> Path:
    names = _names(passages, "text", "id", "title")
    columns = {name: [getattr(passage, name) for passage in passages] for name in names}
    parquet.write_table(pa.table(columns), path, **options)
    return path


def _names(passages: Sequence[Passage], *names: str) -> list[str]:
    """The columns, with that of pages where some passage has one."""
    return [*names, "wikipedia_id"] if any(passage.wikipedia_id for passage in passages) else list(names)


def _write(path: Path, content: str) -> Path:
    encoded = content.encode("utf-8")
    if path.suffix == ".zst":
        encoded = import_module("backports.zstd").compress(encoded)
    path.write_bytes(gzip.compress(encoded) if path.suffix == ".gz" else encoded)
    return path


WRITERS: dict[str, Callable[[Path, Sequence[Passage]], Path]] = {
    "jsonl": write_jsonl,
    "jsonl.gz": write_jsonl,
    "tsv": write_tsv,
    "tsv.gz": write_tsv,
    "parquet": write_parquet,
    **(dict(zip(ZSTD, (write_jsonl, write_tsv), strict=True)) if HAS_ZSTD else {}),
}
"""By the ending of the file's name; all of them keep ids that are strings."""
