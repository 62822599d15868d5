"""A walk along protobuf's wire format, without its library and without a copy of what it passes."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["fields", "packed_varints"]

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)


def fields(content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message by number: bytes for one with a length, else the number, or the bytes of a fixed one.

    Groups are passed over. Raises ValueError where the content is no message.
    """
    place, groups = 0, 0
    value: memoryview | int
    while place < len(content):
        tag, place = _varint(content, place)
        field, wire = tag >> 3, tag & 7
        value = 0
        if wire == VARINT:
            value, place = _varint(content, place)
        elif wire in (LENGTH, FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
            if wire == LENGTH:
                length, place = _varint(content, place)
            if place + length > len(content):
                raise ValueError("a field that is longer than its message")
            value = content[place : place + length]
            place += length
        elif wire in (GROUP, END_GROUP):
            groups += 1 if wire == GROUP else -1
        else:
            raise ValueError(f"a wire type {wire}")
        if not field or groups < 0:
            raise ValueError("a tag that is none")
        if not groups and wire != END_GROUP:
            yield field, value
    if groups:
        raise ValueError("a message that ends within a field")


def packed_varints(content: memoryview) -> Iterator[int]:
    """The numbers, without sign, of a repeated field that is packed; raises ValueError as `fields`."""
    place = 0
    while place < len(content):
        number, place = _varint(content, place)
        yield number


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if place >= len(content) or shift > 63:
            raise ValueError("a number without an end")
        byte = content[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
