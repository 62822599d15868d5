"""Parquet: the columns that hold a passage's fields, under our names or another collection's; others are ignored.

Ids and pages are integers or strings, other columns strings, and a text may be a list of paragraphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibration.passage_fields import FIELDS
from exporter.memory.corpus.record import MAX_RECORD_BYTES, Digest, Place, Record, passage_from_row
from runtime.contract import CorpusError

__all__ = ["read_parquet"]

COLUMNS = (*(name for names in FIELDS.values() for name in names), "section", "wikipedia_id")
INTEGERS_TOO = (*FIELDS["id"], "wikipedia_id")
LISTS_TOO = FIELDS["text"]
BUFFER_BYTES = 1 << 20
MAX_GROUP_BYTES = 1 << 30
MAX_BATCH_ROWS = 1024


def read_parquet(path: Path, start: Place, digest: Digest | None) -> Iterator[Record]:
    """One record a row, page by page; row groups before `start` are not read. The digest is shown the file's bytes.

    A null title or page is none. Raises CorpusError with the row's number, from 1: unreadable or damaged, a column that
    is missing or of another type, a null id or text, a row group or a row that is too large. Raises ModuleNotFoundError
    without pyarrow.
    """
    import pyarrow as pa

    try:
        if digest is not None:
            with path.open("rb") as stream:
                while content := stream.read(BUFFER_BYTES):
                    digest.update(content)
        with pa.OSFile(str(path)) as source:
            yield from _records(source, path, start)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as reason:  # the last from a column's name
        raise CorpusError(
            f"corpus {path}", expected="a Parquet file that is whole", found=" ".join(str(reason).split()),
            fix="write or copy the file again",
        ) from None


def _records(source: Any, path: Path, start: Place) -> Iterator[Record]:
    from pyarrow.parquet import ParquetFile

    # Buffered: by pages, where otherwise a column's whole row group would be in memory at once.
    file = ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
    columns = _columns(file.schema_arrow, path)
    end = 0
    for group in range(file.metadata.num_row_groups):
        entry = file.metadata.row_group(group)
        row, end = end, end + entry.num_rows
        if end <= start.position:
            continue
        batch_rows = _batch_rows(entry.total_byte_size, f"corpus {path}, row group {group}")
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
            for index in range(batch.num_rows):
                if row >= start.position:
                    subject = f"corpus {path}, row {row + 1}"
                    values = {name: _value(batch.column(name)[index], name, subject) for name in columns}
                    known = {name: value for name, value in values.items() if value is not None}
                    yield Record(Place(row, row + 1), passage_from_row(known, subject=subject, fix="repair the row"))
                row += 1


def _columns(schema: Any, path: Path) -> list[str]:
    """Those of the columns that the file has, each once and of the right type."""
    from pyarrow import types

    def is_text(kind: Any) -> bool:
        return any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view))

    fix = 'give it "id", "text" and, where there is one, "title"'
    found = []
    for name in COLUMNS:
        indices = schema.get_all_field_indices(name)
        if not indices:
            continue
        subject = f'corpus {path}, column "{name}"'
        if len(indices) != 1:
            raise CorpusError(subject, expected="one", found=str(len(indices)), fix=fix)
        stored = schema.field(indices[0]).type
        kind = stored.value_type if types.is_dictionary(stored) else stored
        listed = name in LISTS_TOO and (types.is_list(kind) or types.is_large_list(kind))
        kind = kind.value_type if listed else kind
        integer = name in INTEGERS_TOO and types.is_integer(kind)
        if not is_text(kind) and not integer and not types.is_null(kind):
            expected = "integers or strings" if name in INTEGERS_TOO else "strings"
            raise CorpusError(subject, expected=expected, found=str(stored), fix="cast the column")
        found.append(name)
    for field in ("id", "text"):
        if not set(FIELDS[field]) & set(found):
            among = ", ".join(f'"{name}"' for name in schema.names[:12])
            raise CorpusError(
                f'corpus {path}, column "{field}"', expected="one", found=f"none, among {among or 'none'}", fix=fix
            )
    return found


def _batch_rows(size: int, subject: str) -> int:
    """How many rows of a row group to take at a time.

    A dictionary holds a value once that many rows may have, so as many rows as MAX_GROUP_BYTES can hold even where
    each has all that the row group holds. The sizes of its columns would be closer, but pyarrow ends the process where
    what a damaged file says of a column contradicts itself.
    """
    if size > MAX_GROUP_BYTES:
        raise CorpusError(
            subject, expected=f"at most {MAX_GROUP_BYTES} bytes, uncompressed", found=str(size),
            fix="write the file with fewer rows to a row group, such as 100,000",
        )
    return int(min(MAX_BATCH_ROWS, max(1, MAX_GROUP_BYTES // max(1, size))))


def _value(scalar: Any, name: str, subject: str) -> int | str | list[Any] | None:
    """A scalar of a column as Python has it; None where it is null."""
    from pyarrow import DictionaryScalar, LargeListScalar, ListScalar

    if not scalar.is_valid:
        return None
    if isinstance(scalar, (ListScalar, LargeListScalar)):
        if scalar.values.nbytes > MAX_RECORD_BYTES:
            raise _too_large(name, scalar.values.nbytes, subject)
        return [_value(item, name, subject) for item in scalar.values]
    plain = scalar.value if isinstance(scalar, DictionaryScalar) else scalar
    if not hasattr(plain, "as_buffer"):
        number: int = plain.as_py()
        return number
    content = plain.as_buffer()
    if content.size > MAX_RECORD_BYTES:
        raise _too_large(name, content.size, subject)
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError as reason:
        raise CorpusError(
            subject, expected=f'a "{name}" in UTF-8', found=str(reason), fix="repair the row"
        ) from None


def _too_large(name: str, size: int, subject: str) -> CorpusError:
    return CorpusError(
        subject, expected=f'a "{name}" of at most {MAX_RECORD_BYTES} bytes', found=str(size),
        fix="put one passage in a row",
    )
