"""What a graph file reads from outside itself, found without onnx: a walk along protobuf's wire format.

ONNX Runtime follows `external_data` wherever it leads, so a bundle from elsewhere could have any file read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.contract import GlimmerError, map_regular
from glimmer_export.runtime.onnx_constants import check_made_constants, read_tensor
from glimmer_export.runtime.protobuf_fields import fields

__all__ = ["ExternalData", "check_external_data", "external_data"]

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION = range(7)
CHILDREN: dict[int, dict[int, int]] = {
    MODEL: {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
}
"""Of onnx.proto: by message, the fields that may hold a tensor, and the message that each is."""
NAME, VALUE = 1, 2
"""Of a pair of external data: its key and its value."""
MAX_DEPTH = 100
"""As protobuf's own."""


@dataclass(frozen=True)
class ExternalData:
    """One tensor's place: a path below the graph's folder, and bytes in that file; length 0 is up to its end.

    `stated` bytes are those of its shape, None where its type is not known.
    """

    location: bytes
    offset: int
    length: int
    stated: int | None = None


def check_external_data(
    graph: Path, sizes: Mapping[str, int], *, error: type[GlimmerError], subject: str, fix: str
) -> None:
    """Raise `error` where a graph file reads anything but files of these names below its folder, or past their ends.

    `sizes` are theirs in bytes; `fix` is for a graph that is damaged.
    """
    content = map_regular(graph, error=error, subject=subject, fix=fix)
    try:
        for data in external_data(memoryview(content or b"")):
            size = sizes.get(name := data.location.decode(errors="replace"))
            if size is None:
                raise error(
                    subject, expected="weights in the files of its manifest", found=repr(name),
                    fix="do not use it; get it again from its source",
                )
            if (end := data.offset + max(data.length, data.stated or 0)) > size:
                raise error(
                    subject, expected=f"weights within the {size} bytes of {name}", found=f"some up to byte {end}",
                    fix=fix,
                )
    except ValueError as reason:
        raise error(subject, expected="an ONNX graph", found=str(reason), fix=fix) from None


def external_data(content: memoryview) -> Iterator[ExternalData]:
    """Every external tensor of a serialised ONNX model.

    Raises ValueError where it is none, and for a constant whose shape states other bytes than it has, or that a node
    makes of a shape alone, in gigabytes: of such a one libraries make an array before they look.
    """
    yield from _tensors(content, MODEL, MAX_DEPTH)


def _tensors(content: memoryview, message: int, depth: int) -> Iterator[ExternalData]:
    if not depth:
        raise ValueError("messages nested too deep")
    if message == TENSOR:
        yield from _places(content)
        return
    if message == GRAPH:
        check_made_constants(content)
    for field, value in fields(content):
        if field in CHILDREN[message] and isinstance(value, memoryview):
            yield from _tensors(value, CHILDREN[message][field], depth - 1)


def _places(content: memoryview) -> Iterator[ExternalData]:
    tensor = read_tensor(content)
    pairs = [_pair(pair) for pair in tensor.external]
    if not pairs:
        tensor.check_size()
        return
    # Each location for itself: readers differ in which of several they take.
    numbers = dict(pairs)
    length = _number(numbers.get(b"length"))
    for key, location in pairs:
        if key == b"location":
            yield ExternalData(location, _number(numbers.get(b"offset")), length, tensor.num_bytes)
    if length:  # after its place: one that ends past its file's end is told as that
        tensor.check_size(length)


def _pair(content: memoryview) -> tuple[bytes, bytes]:
    values = {field: bytes(value) for field, value in fields(content) if isinstance(value, memoryview)}
    return values.get(NAME, b""), values.get(VALUE, b"")


def _number(text: bytes | None) -> int:
    number = int(text or b"0")
    if number < 0:
        raise ValueError("a negative place in external data")
    return number
