"""Parquet: the columns that hold a passage's fields, under our names or another collection's; others are ignored.

Ids and pages are integers or strings, other columns strings, and a text may be a list of paragraphs.

Before anything is read, the headers of the pages tell what they unpack to. The file's footer states sizes too, but
nothing holds a file to them; what stands in front of a page is what is allocated for it. Footer and headers are in
Thrift's compact protocol, and pyarrow does not show the latter.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from glimmer_export.calibration.public_fields import FIELDS
from glimmer_export.exporter.memory.corpus.records import MAX_RECORD_BYTES, Digest, Place, Record, passage_from_row
from glimmer_export.runtime.contract import CorpusError

__all__ = ["ColumnPages", "column_pages", "read_parquet"]

COLUMNS = (*(name for names in FIELDS.values() for name in names), "section", "wikipedia_id")
INTEGERS_TOO = (*FIELDS["id"], "wikipedia_id")
LISTS_TOO = FIELDS["text"]
BUFFER_BYTES = 1 << 20
MAX_GROUP_BYTES = 1 << 30
MAX_PAGE_BYTES = 128 << 20
"""DuckDB writes the largest, of 100 MB; others write 1 MB."""
MAX_LIST_VALUES = 1 << 24
"""Of all lists of a row group: one row may have them all."""
MAX_PAGES_BYTES = 256 << 20
"""Of the largest pages of all columns together."""
MAX_BATCH_BYTES = 128 << 20
MAX_BATCH_ROWS = 1024

MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 16 << 20
MAX_HEADER_BYTES = 1 << 20
HEADER_BYTES = 512
"""Read at first for a page's header, which has some 30, and more where it states the least and greatest value."""
MAX_DEPTH = 16
DELTA_BYTE_ARRAY = 7
"""The encoding in which a value may repeat the one before it, so that a page of n bytes has values of n bytes each."""
# The fields of parquet.thrift, by their numbers.
ROW_GROUPS, CHUNKS, COLUMN_METADATA = 4, 1, 3
PATH, NUM_VALUES, COMPRESSED, DATA_PAGE, DICTIONARY_PAGE = 3, 5, 7, 9, 11
PAGE_UNPACKED, PAGE_PACKED, PAGE_V1, PAGE_DICTIONARY, PAGE_V2 = 2, 3, 5, 7, 8
VALUES, ENCODING_V1, ENCODING_V2 = 1, 2, 4


def read_parquet(path: Path, start: Place, digest: Digest | None) -> Iterator[Record]:
    """One record a row, page by page; row groups before `start` are not read. The digest is shown the file's bytes.

    A null one is missing. Raises CorpusError with the row's number, from 1: unreadable or damaged, a column that
    is missing or of another type, a null id or text, a row group, a page or a row that is too large. Raises
    ModuleNotFoundError without pyarrow.
    """
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as source:
            yield from _records(source, path, start, digest)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as reason:  # the last from a column's name
        raise _damaged(path, " ".join(str(reason).split())) from None


def _show(path: Path, digest: Digest) -> None:
    with path.open("rb") as stream:
        while content := stream.read(BUFFER_BYTES):
            digest.update(content)


def _records(source: Any, path: Path, start: Place, digest: Digest | None) -> Iterator[Record]:
    from pyarrow.parquet import ParquetFile

    # Buffered: by pages, where otherwise a column's whole row group would be in memory at once.
    options = {"buffer_size": BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
    file = ParquetFile(source, **options)
    columns = _columns(file.schema_arrow, path)
    pages = _pages(path, columns, file.metadata.num_row_groups)
    if digest is not None:  # only now: a file without a Parquet's end is refused before all of it is read
        _show(path, digest)
    lists = {column.leaf for columns in pages for column in columns if "." in column.leaf}
    if lists:
        # A paragraph that a list has a thousand times is then in memory once.
        file = ParquetFile(source, read_dictionary=sorted(lists), **options)
    end = 0
    for group in range(file.metadata.num_row_groups):
        entry = file.metadata.row_group(group)
        row, end = end, end + entry.num_rows
        if end <= start.position:
            continue
        batch_rows = _batch_rows(entry.total_byte_size, pages[group], f"corpus {path}, row group {group}")
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
            for index in range(batch.num_rows):
                if row >= start.position:
                    subject = f"corpus {path}, row {row + 1}"
                    values = {name: _value(batch.column(name)[index], name, subject) for name in columns}
                    known = {name: value for name, value in values.items() if value is not None}
                    yield Record(Place(row, row + 1), passage_from_row(known, subject=subject, fix="repair the row"))
                row += 1


def _pages(path: Path, columns: list[str], num_groups: int) -> list[list[ColumnPages]]:
    try:
        pages = column_pages(path, columns)
    except ValueError as reason:
        raise _damaged(path, str(reason)) from None
    if len(pages) != num_groups:
        raise _damaged(path, "a footer that can be read in two ways")
    return pages


def _damaged(path: Path, found: str) -> CorpusError:
    return CorpusError(
        f"corpus {path}", expected="a Parquet file that is whole", found=found, fix="write or copy the file again"
    )


def _columns(schema: Any, path: Path) -> list[str]:
    """Those of the columns that the file has, each once and of the right type."""
    from pyarrow import types

    def is_text(kind: Any) -> bool:
        return any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view))

    fix = 'give it "id", "text" and, if there is one, "title"'
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


def _batch_rows(size: int, columns: Sequence[ColumnPages], subject: str) -> int:
    """How many rows of a row group to take at a time, so that they are no more than MAX_BATCH_BYTES.

    A dictionary holds a value once that many rows may have, and one encoding says of a value that it begins as the one
    before: no value is longer than the largest page, and every row may have as much. `size` is what the footer states.
    """
    if size > MAX_GROUP_BYTES:
        raise CorpusError(
            subject, expected=f"at most {MAX_GROUP_BYTES} bytes, uncompressed", found=str(size),
            fix="write the file with fewer rows to a row group, such as 100,000",
        )
    sizes = [column.largest for column in columns]
    largest, together = max(sizes, default=0), sum(sizes)
    if largest > MAX_PAGE_BYTES or together > MAX_PAGES_BYTES:
        raise CorpusError(
            subject, expected=f"pages of at most {MAX_PAGE_BYTES} bytes, uncompressed, and {MAX_PAGES_BYTES} together",
            found=str(largest), fix="write the file with pages of 1 MB, as most programs do",
        )
    for column in (column for column in columns if "." in column.leaf):
        repeated = column.num_values * column.largest if column.repeats else 0
        if column.num_values > MAX_LIST_VALUES or max(column.total, repeated) > MAX_GROUP_BYTES:
            raise CorpusError(
                f"{subject}, column {column.leaf}",
                expected=f"at most {MAX_LIST_VALUES} values of {MAX_GROUP_BYTES} bytes together",
                found=f"{column.num_values} of {max(column.total, repeated)}",
                fix="write the file with fewer rows to a row group, such as 10,000, and without DELTA_BYTE_ARRAY",
            )
    return int(min(MAX_BATCH_ROWS, max(1, MAX_BATCH_BYTES // max(1, together))))


def _value(scalar: Any, name: str, subject: str) -> int | str | list[Any] | None:
    """A scalar of a column as Python has it; None if it is null."""
    from pyarrow import DictionaryScalar, LargeListScalar, ListScalar

    if not scalar.is_valid:
        return None
    if isinstance(scalar, (ListScalar, LargeListScalar)):
        paragraphs: list[Any] = []
        size = 0
        for item in scalar.values:
            paragraphs.append(value := _value(item, name, subject))
            size += len(value) if isinstance(value, str) else 1
            if size > MAX_RECORD_BYTES:
                raise _too_large(name, size, subject)
        return paragraphs
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


@dataclass(frozen=True)
class ColumnPages:
    """One column of one row group: bytes of its largest page and of all, uncompressed, and how many values it has.

    `leaf` is where its values stand below the column: a list's do in a column of their own. `repeats` says whether
    values may repeat the one before them.
    """

    leaf: str
    largest: int
    total: int
    num_values: int
    repeats: bool


def column_pages(path: Path, columns: Collection[str]) -> list[list[ColumnPages]]:
    """For each row group, those of its columns that stand in or below `columns`.

    Raises ValueError if the file is not in this format, OSError if it cannot be read.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        groups = []
        for group in _list(_footer(stream, size).get(ROW_GROUPS)):
            chunks = [_struct(_struct(chunk).get(COLUMN_METADATA)) for chunk in _list(_struct(group).get(CHUNKS))]
            named = [(_leaf(_list(chunk.get(PATH))), chunk) for chunk in chunks]
            groups.append([
                _chunk_pages(stream, size, leaf, chunk) for leaf, chunk in named if leaf.partition(".")[0] in columns
            ])
        return groups


def _footer(stream: BinaryIO, size: int) -> dict[int, Any]:
    stream.seek(max(0, size - 8))
    end = stream.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != MAGIC or not 0 < length <= min(MAX_FOOTER_BYTES, size - 12):
        raise ValueError(f"no footer of at most {MAX_FOOTER_BYTES} bytes")
    stream.seek(size - 8 - length)
    try:
        return _Compact(stream.read(length)).struct()
    except IndexError:
        raise ValueError("a footer that is cut short") from None


def _chunk_pages(stream: BinaryIO, size: int, leaf: str, chunk: Mapping[int, Any]) -> ColumnPages:
    place, dictionary = _number(chunk, DATA_PAGE), chunk.get(DICTIONARY_PAGE)
    if isinstance(dictionary, int) and 0 < dictionary < place:
        place = dictionary
    end, left = place + _number(chunk, COMPRESSED), _number(chunk, NUM_VALUES)
    largest = total = num_values = 0
    repeats = False
    while place < min(end, size) and num_values < left:
        header, length = _header(stream, place)
        unpacked, packed = _number(header, PAGE_UNPACKED), _number(header, PAGE_PACKED)
        largest, total = max(largest, unpacked), total + unpacked
        for kind, encoding in ((PAGE_V1, ENCODING_V1), (PAGE_V2, ENCODING_V2)):
            if kind in header:
                page = _struct(header[kind])
                num_values += _number(page, VALUES)
                repeats = repeats or page.get(encoding) == DELTA_BYTE_ARRAY
        place += length + packed
    return ColumnPages(leaf, largest, total, num_values, repeats)


def _header(stream: BinaryIO, place: int) -> tuple[dict[int, Any], int]:
    """A page's header, and how many bytes it has."""
    most = HEADER_BYTES
    while True:
        stream.seek(place)
        reader = _Compact(stream.read(most))
        try:
            return reader.struct(), reader.place
        except IndexError:
            if most >= MAX_HEADER_BYTES:
                raise ValueError(f"a page's header of more than {MAX_HEADER_BYTES} bytes, or one cut short") from None
            most *= 8


class _Compact:
    """Thrift's compact protocol: structs are mappings from the fields' numbers. IndexError if it is cut off."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while kind := (byte := self._byte()) & 15:
            number = number + (byte >> 4) if byte >> 4 else self._integer()
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:  # noqa: PLR0911  # a value for each type
        if depth > MAX_DEPTH:
            raise ValueError("values that nest too deep")
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            byte = self._byte()
            count = self._unsigned() if byte >> 4 == 15 else byte >> 4
            if count > len(self._content):
                raise IndexError(count)
            return [self._value(byte & 15, depth + 1) for _ in range(count)]
        if kind == 11:
            count = self._unsigned()
            kinds = self._byte() if count else 0
            if count > len(self._content):
                raise IndexError(count)
            return [(self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"a field of the unknown type {kind}")

    def _byte(self) -> int:
        self.place += 1
        return self._content[self.place - 1]

    def _bytes(self, count: int) -> bytes:
        self.place += count
        if self.place > len(self._content):
            raise IndexError(self.place)
        return self._content[self.place - count : self.place]

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _integer(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)


def _leaf(names: list[Any]) -> str:
    if not all(isinstance(name, bytes) for name in names):
        raise ValueError("a column's name that is not text")
    return b".".join(names).decode("utf-8", "replace")


def _struct(value: Any) -> dict[int, Any]:
    if not isinstance(value, dict):
        raise ValueError("something else than a struct")  # noqa: TRY004  # the file's fault, and no caller's
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("something else than a list")  # noqa: TRY004  # as above
    return value


def _number(fields: Mapping[int, Any], field: int) -> int:
    number = fields.get(field)
    if type(number) is not int or number < 0:
        raise ValueError(f"no number in field {field}")
    return number
