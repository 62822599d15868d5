"""Passages taken out of a store: tombstones for them; their memory, and their texts, are there until compacted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from glimmer_export.calibration.public_fields import passage_fields
from glimmer_export.exporter.files.links import Inputs
from glimmer_export.exporter.memory.commit import Change, changed_corpus, changing
from glimmer_export.exporter.memory.find_ids import find_chunks, find_numbers
from glimmer_export.exporter.memory.segments import changed_index, changed_texts
from glimmer_export.exporter.memory.work import check_output
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.contract import (
    STORE_SCHEMA_VERSION,
    CorpusError,
    PassageError,
    StoreError,
    read_limited,
)
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.kinds import STORE, require_kind
from glimmer_export.runtime.contract.text_schema import is_id

__all__ = ["DeleteSummary", "delete_passages", "id_from_text", "read_ids"]

MAX_IDS_BYTES = 1 << 30
"""A corpus may be given for its ids: more of it than this is not held in memory."""
JSON_ID = "a string, an integer of 64 bits, or an object that has one as its `id`"


@dataclass(frozen=True)
class DeleteSummary:
    """What a deletion made; `passages` are still there. `already_complete`: the store's last change was this one."""

    generation: int
    deleted: int
    passages: int
    seconds: float
    already_complete: bool


def delete_passages(
    store: str | Path, ids: Sequence[int | str], *, inputs: Inputs = (), progress: bool = False
) -> DeleteSummary:
    """Delete the passages of some ids from a store; naming one twice does no harm.

    Where documents were cut into passages, the id of a document stands for all of its passages. `inputs` are files that
    the ids were read from, which must lie apart from the store.

    Raises PassageError for an id that the store does not hold, StoreError (no store, a damaged one), OutputError
    (another process changes it, a full disk): the store is then as it was.
    """
    started = time.monotonic()
    wanted = list(dict.fromkeys(_checked(value) for value in ids))
    digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
    require_kind(Path(store), STORE, error=StoreError)
    check_output(Path(store), inputs)
    with changing(Path(store)) as change:
        before = change.manifest
        if change.was_made(digest):
            return DeleteSummary(before.generation, 0, before.num_passages, time.monotonic() - started, True)
        numbers = _numbers(change, wanted)
        with progress_bar("Deleting passages", len(numbers), shown=progress) as advance:
            texts = changed_texts(change, deleted=numbers, advance=advance)
            segments = changed_index(change, texts, deleted=numbers, advance=advance)
        tombstone_files, tombstones = change.bury(numbers)
        manifest = dataclasses.replace(
            before,
            schema_version=STORE_SCHEMA_VERSION,
            generation=change.generation,
            num_passages=before.num_passages - len(numbers),
            corpus_sha256=changed_corpus(before, digest),
            earlier_sha256=before.corpus_sha256,
            index=change.index(),
            texts=texts,
            segments=segments,
            tombstone_files=tombstone_files,
            tombstones=tombstones,
        )
        change.publish(manifest)
    return DeleteSummary(
        manifest.generation, len(numbers), manifest.num_passages, time.monotonic() - started, already_complete=False
    )


def read_ids(path: Path) -> list[int | str]:
    """Ids from a file of one JSON value a line: an id, or an object with an `id` (or `_id`), as a corpus has them.

    Raises CorpusError with the line.
    """
    ids: list[int | str] = []
    subject, expected, fix = f"ids {path}", "a readable file in UTF-8", "check the file"
    content = read_limited(
        path, limit_bytes=MAX_IDS_BYTES, error=CorpusError, subject=subject, expected=expected, fix=fix
    )
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except ValueError as reason:
        raise CorpusError(subject, expected=expected, found=str(reason), fix=fix) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as reason:
            raise CorpusError(
                f"ids {path}, line {number}", expected="JSON", found=str(reason),
                fix="write strings in quotes, as the corpus has them",
            ) from None
        value = passage_fields(value).get("id") if isinstance(value, dict) else value
        if not isinstance(value, (int, str)) or not is_id(value):
            raise CorpusError(
                f"ids {path}, line {number}", expected=JSON_ID, found=line.strip()[:80], fix="repair the line"
            )
        ids.append(value)
    return ids


def id_from_text(text: str) -> int | str:
    """An id as an option gives it: `7` is a number, `"7"` in quotes a string, and so is what is not JSON."""
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, str)) and is_id(value) else text


def _checked(value: int | str) -> int | str:
    if not is_id(value):
        raise _unknown(value, "a store")
    return value


def _numbers(change: Change, ids: list[int | str]) -> list[int]:
    """Numbers of the passages of these ids, and of documents' if they are cut into passages."""
    numbers = dict[int, None]()
    with change.texts() as texts:
        cut = change.manifest.chunk_words is not None
        documents = list(find_chunks(texts, ids)) if cut else repeat([])
        found_ids = list(find_numbers(texts, ids))
    for value, found, chunks in zip(ids, found_ids, documents, strict=False):
        if not found and not chunks:
            raise _unknown(value, f"store {change.store}")
        if found and chunks:
            raise PassageError(
                f"passage id {value!r}", expected="a passage's or a document's",
                found="a passage and a document of that id",
                fix=f"for the document, give its passages: {value}#0 and so on",
            )
        numbers.update(dict.fromkeys([*found, *chunks]))
    return list(numbers)


def _unknown(value: int | str, place: str) -> PassageError:
    return PassageError(
        f"passage id {value!r}", expected=f"an id in {place}", found="none",
        fix='give ids as the corpus has them (1 and "1" are two ids)',
    )
