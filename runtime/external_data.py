"""What a graph file reads from outside itself, found without onnx: a walk along protobuf's wire format.

ONNX Runtime follows `external_data` wherever it leads, so a bundle from elsewhere could have any file read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.contract import GlimmerError, map_regular

__all__ = ["ExternalData", "check_external_data", "external_data"]

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION = range(7)
CHILDREN: dict[int, dict[int, int]] = {
    MODEL: {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    TENSOR: {},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
}
"""Of onnx.proto: by message, the fields that may hold a tensor, and the message that each is."""
EXTERNAL_DATA = 13
"""The field of a tensor with its pairs of key (1) and value (2)."""
VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
MAX_DEPTH = 100
"""As protobuf's own."""


@dataclass(frozen=True)
class ExternalData:
    """One tensor's place: a path below the graph's folder, and bytes in that file; length 0 is up to its end."""

    location: bytes
    offset: int
    length: int


def check_external_data(
    graph: Path, sizes: Mapping[str, int], *, error: type[GlimmerError], subject: str, fix: str
) -> None:
    """Raise `error` where a graph file reads anything but files of these names below its folder, or past their ends.

    `sizes` are theirs in bytes; `fix` is for a graph that is damaged.
    """
    content = map_regular(graph, error=error, subject=subject, fix=fix)
    try:
        found = list(external_data(memoryview(content or b"")))
    except ValueError as reason:
        raise error(subject, expected="an ONNX graph", found=str(reason), fix=fix) from None
    for data in found:
        size = sizes.get(name := data.location.decode(errors="replace"))
        if size is None:
            raise error(
                subject, expected="weights in the files of its manifest",
                found=repr(name),
                fix="do not use it; get it again from its source",
            )
        if (end := data.offset + data.length) > size:
            raise error(
                subject, expected=f"weights within the {size} bytes of {name}", found=f"some up to byte {end}", fix=fix
            )


def external_data(content: memoryview) -> Iterator[ExternalData]:
    """Every external tensor of a serialised ONNX model; raises ValueError where it is none."""
    yield from _tensors(content, MODEL, MAX_DEPTH)


def _tensors(content: memoryview, message: int, depth: int) -> Iterator[ExternalData]:
    if not depth:
        raise ValueError("messages nested too deep")
    pairs: list[tuple[bytes, bytes]] = []
    for field, value in _fields(content):
        if message == TENSOR and field == EXTERNAL_DATA:
            pairs.append(_pair(value))
        elif field in CHILDREN[message]:
            yield from _tensors(value, CHILDREN[message][field], depth - 1)
    # Each location for itself: readers differ in which of several they take.
    numbers = dict(pairs)
    for key, location in pairs:
        if key == b"location":
            yield ExternalData(location, _number(numbers.get(b"offset")), _number(numbers.get(b"length")))


def _pair(content: memoryview) -> tuple[bytes, bytes]:
    values = {field: bytes(value) for field, value in _fields(content)}
    return values.get(1, b""), values.get(2, b"")


def _number(text: bytes | None) -> int:
    number = int(text or b"0")
    if number < 0:
        raise ValueError("a negative place in external data")
    return number


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields with a length, by number; all others are passed over."""
    place, groups = 0, 0
    while place < len(content):
        tag, place = _varint(content, place)
        field, wire = tag >> 3, tag & 7
        if wire == LENGTH:
            length, place = _varint(content, place)
            if place + length > len(content):
                raise ValueError("a field that is longer than its message")
            if not groups:
                yield field, content[place : place + length]
            place += length
        elif wire == VARINT:
            _, place = _varint(content, place)
        elif wire in (FIXED64, FIXED32):
            place += 8 if wire == FIXED64 else 4
        elif wire in (GROUP, END_GROUP):
            groups += 1 if wire == GROUP else -1
        else:
            raise ValueError(f"a wire type {wire}")
        if not field or groups < 0:
            raise ValueError("a tag that is none")
    if place != len(content) or groups:
        raise ValueError("a message that ends within a field")


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
