"""What the pages of a Parquet file unpack to, by the headers of the pages themselves, before any is read.

The file's footer states sizes too, but nothing holds a file to them; what stands in front of a page is what is
allocated for it. Footer and headers are in Thrift's compact protocol, and pyarrow does not show the latter.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["ColumnPages", "column_pages"]

MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 16 << 20
MAX_HEADER_BYTES = 1 << 20
HEADER_BYTES = 512
"""Read at first for a page's header, which has some 30, and more where it states the least and greatest value."""
MAX_DEPTH = 16
DELTA_BYTE_ARRAY = 7
"""The encoding in which a value may repeat the one before it, so that a page of n bytes has values of n bytes each."""
# The fields of parquet.thrift, by their numbers.
ROW_GROUPS, COLUMNS, COLUMN_METADATA = 4, 1, 3
PATH, NUM_VALUES, COMPRESSED, DATA_PAGE, DICTIONARY_PAGE = 3, 5, 7, 9, 11
PAGE_UNPACKED, PAGE_PACKED, PAGE_V1, PAGE_DICTIONARY, PAGE_V2 = 2, 3, 5, 7, 8
VALUES, ENCODING_V1, ENCODING_V2 = 1, 2, 4


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

    Raises ValueError where the file is none in this format, OSError where it cannot be read.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        groups = []
        for group in _list(_footer(stream, size).get(ROW_GROUPS)):
            chunks = [_struct(_struct(chunk).get(COLUMN_METADATA)) for chunk in _list(_struct(group).get(COLUMNS))]
            named = [(_leaf(_list(chunk.get(PATH))), chunk) for chunk in chunks]
            groups.append([
                _pages(stream, size, leaf, chunk) for leaf, chunk in named if leaf.partition(".")[0] in columns
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


def _pages(stream: BinaryIO, size: int, leaf: str, chunk: Mapping[int, Any]) -> ColumnPages:
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
    """Thrift's compact protocol: structs are mappings from the fields' numbers. IndexError where it is cut off."""

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
        raise ValueError("a column's name that is none")
    return b".".join(names).decode("utf-8", "replace")


def _struct(value: Any) -> dict[int, Any]:
    if not isinstance(value, dict):
        raise ValueError("a struct that is none")  # noqa: TRY004  # the file's fault, and no caller's
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list that is none")  # noqa: TRY004  # as above
    return value


def _number(fields: Mapping[int, Any], field: int) -> int:
    number = fields.get(field)
    if type(number) is not int or number < 0:
        raise ValueError(f"no number in field {field}")
    return number
