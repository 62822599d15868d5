"""What a graph file reads from outside itself, and how large its constants are, found without onnx and before either.

A walk along protobuf's wire format, without its library and without a copy of what it passes. ONNX Runtime follows
`external_data` wherever it leads, so a bundle from elsewhere could have any file read; a tensor states its shape beside
its values, and a ConstantOfShape or an Expand of a constant shape has no values at all.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glimmer_export.runtime.contract import GlimmerError, map_regular

__all__ = ["check_external_data", "external_data", "tensor_places", "varint"]

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
MAX_MADE_ELEMENTS = 1 << 28
"""Of a constant that a node makes of a shape: 1 GiB in FP32. What models so make is masks, of a few megabytes."""
MAX_RANK = 64
"""Dimensions of an array of numpy, and numbers of what can be one's shape."""
MAX_PACKED = 4
"""Elements of 2 bits in one number of a typed field."""
DIMS, DATA_TYPE, TENSOR_NAME, RAW_DATA, EXTERNAL_DATA = 1, 2, 8, 9, 13
TYPED = {4: 4, 5: None, 6: None, 7: None, 10: 8, 11: None}
"""Fields of typed values: bytes of each, None if they are numbers of any length; 6 has texts."""
TEXTS, INTEGERS = 6, 7
INT64 = 7
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}
"""Of one element, by TensorProto.DataType; 8 are texts."""
GRAPH_NODE, GRAPH_TENSOR = 1, 5
NODE_INPUT, NODE_OUTPUT, NODE_TYPE, NODE_ATTRIBUTE, ATTRIBUTE_TENSOR = 1, 2, 4, 5, 5
SHAPE_INPUT = {b"ConstantOfShape": 0, b"Expand": 1, b"Tile": 1}
"""Operators that make a tensor of any size, and which of their inputs says how large, at least."""
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


def fields(content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message by number: bytes for one with a length, else the number, or the bytes of a fixed one.

    Groups are passed over. Raises ValueError if the content is no message.
    """
    place, groups = 0, 0
    value: memoryview | int
    while place < len(content):
        tag, place = varint(content, place)
        number, wire = tag >> 3, tag & 7
        value = 0
        if wire == VARINT:
            value, place = varint(content, place)
        elif wire in (LENGTH, FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
            if wire == LENGTH:
                length, place = varint(content, place)
            if place + length > len(content):
                raise ValueError("a field that is longer than its message")
            value = content[place : place + length]
            place += length
        elif wire in (GROUP, END_GROUP):
            groups += 1 if wire == GROUP else -1
        else:
            raise ValueError(f"a wire type {wire}")
        if not number or groups < 0:
            raise ValueError("a tag that does not exist")
        if not groups and wire != END_GROUP:
            yield number, value
    if groups:
        raise ValueError("a message that ends within a field")


def packed_varints(content: memoryview) -> Iterator[int]:
    """The numbers, without sign, of a repeated field that is packed; raises ValueError as `fields`."""
    place = 0
    while place < len(content):
        number, place = varint(content, place)
        yield number


def varint(content: memoryview, place: int) -> tuple[int, int]:
    """The number, without sign, that stands at a place, and the place behind it; raises ValueError as `fields`."""
    number = shift = 0
    while True:
        if place >= len(content) or shift > 63:
            raise ValueError("a number without an end")
        byte = content[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


@dataclass
class Tensor:
    """What a TensorProto states: `held` bytes of values of its own, in `elements` texts or numbers if it is typed.

    `raw` says that they are the array's own bytes.
    """

    name: bytes = b""
    data_type: int = 0
    dims: list[int] = field(default_factory=list)
    held: int = 0
    elements: int = 0
    raw: memoryview | None = None
    integers: list[int] = field(default_factory=list)
    external: list[memoryview] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Elements of its shape."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int | None:
        """Bytes of its shape; None if its type has no size."""
        bits = BITS.get(self.data_type)
        return None if bits is None else (self.count * bits + 7) // 8

    def check_size(self, external: int | None = None) -> None:
        """Raise ValueError if its shape states other bytes than it has, in itself or in `external` data."""
        held = external if external is not None or self.raw is None else len(self.raw)
        if held is not None:
            stated = self.num_bytes
            if stated is not None and stated != held:
                raise ValueError(f"a constant {self} of {stated} bytes by its shape, which has {held}")
        elif self.count > MAX_PACKED * self.elements:
            raise ValueError(f"a constant {self} of {self.count} values by its shape, which has {self.elements}")

    def __str__(self) -> str:
        return repr(self.name[:200].decode(errors="replace"))

    def shape(self) -> list[int] | None:
        """Its values, if it is such as a shape is: a few integers of 64 bits."""
        if self.data_type != INT64 or len(self.dims) > 1 or self.count > MAX_RANK or self.external:
            return None
        if self.raw is not None and len(self.raw) != 8 * self.count:
            return None
        if self.raw is not None:
            return [number for (number,) in struct.iter_unpack("<q", self.raw)]
        return [number - (1 << 64) if number >> 63 else number for number in self.integers]


def read_tensor(content: memoryview) -> Tensor:
    """What a serialised TensorProto states; raises ValueError if it is not one, or a dimension is negative."""
    tensor = Tensor()
    for number, value in fields(content):
        if number == DIMS:
            tensor.dims += [value] if isinstance(value, int) else packed_varints(value[: 10 * MAX_RANK])
        elif number == DATA_TYPE and isinstance(value, int):
            tensor.data_type = value
        elif number in TYPED:
            _count(tensor, number, value)
        elif isinstance(value, memoryview):
            if number == TENSOR_NAME:
                tensor.name = bytes(value)
            elif number == RAW_DATA:
                tensor.raw = value
            elif number == EXTERNAL_DATA:
                tensor.external.append(value)
    if len(tensor.dims) > MAX_RANK or any(dim >> 63 for dim in tensor.dims):
        raise ValueError(f"a constant {tensor} with a shape that none has")
    return tensor


def _count(tensor: Tensor, number: int, value: memoryview | int) -> None:
    """Add a field of typed values; numbers of any length take a byte or more, and are counted by that."""
    if isinstance(value, int):
        tensor.elements += 1
        tensor.integers += [value] if number == INTEGERS else []
    elif number == TEXTS:
        tensor.elements += 1
    else:
        tensor.elements += len(value) // (TYPED[number] or 1)
        if number == INTEGERS and len(value) <= 10 * MAX_RANK:
            tensor.integers += packed_varints(value)


def check_made_constants(graph: memoryview) -> None:
    """Raise ValueError if a node of a serialised GraphProto makes a huge constant of a shape that is one too."""
    shapes: dict[bytes, list[int] | None] = {}
    makers: list[tuple[str, list[bytes]]] = []
    for number, value in fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == GRAPH_TENSOR:
            tensor = read_tensor(value)
            shapes[tensor.name] = tensor.shape()
        elif number == GRAPH_NODE:
            _take_node(value, shapes, makers)
    for operator, inputs in makers:
        place = SHAPE_INPUT[operator.encode()]
        sizes = shapes.get(inputs[place]) if place < len(inputs) else None
        if sizes and (count := math.prod(max(size, 0) for size in sizes)) > MAX_MADE_ELEMENTS:
            raise ValueError(f"a constant of {count} values that a node {operator} makes")


def _take_node(
    content: memoryview, shapes: dict[bytes, list[int] | None], makers: list[tuple[str, list[bytes]]]
) -> None:
    operator, value = b"", None
    inputs: list[bytes] = []
    outputs: list[bytes] = []
    for number, found in fields(content):
        if not isinstance(found, memoryview):
            continue
        if number == NODE_TYPE:
            operator = bytes(found)
        elif number in (NODE_INPUT, NODE_OUTPUT):
            (inputs if number == NODE_INPUT else outputs).append(bytes(found))
        elif number == NODE_ATTRIBUTE:
            inner = dict(fields(found)).get(ATTRIBUTE_TENSOR)
            value = inner if isinstance(inner, memoryview) else value
    if operator == b"Constant" and outputs and value is not None:
        shapes[outputs[0]] = read_tensor(value).shape()
    elif operator in SHAPE_INPUT:
        makers.append((operator.decode(), inputs))


@dataclass(frozen=True)
class ExternalData:
    """One tensor's place: a path below the graph's folder, and bytes in that file; length 0 is up to its end.

    `stated` bytes are those of its shape, None if its type is not known.
    """

    location: bytes
    offset: int
    length: int
    stated: int | None = None


def check_external_data(
    graph: Path, sizes: Mapping[str, int], *, error: type[GlimmerError], subject: str, fix: str
) -> None:
    """Raise `error` if a graph file reads anything but files of these names below its folder, or past their ends.

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

    Raises ValueError if it is not one, and for a constant whose shape states other bytes than it has, or that a node
    makes of a shape alone, in gigabytes: of such a one libraries make an array before they look.
    """
    yield from _tensors(content, MODEL, MAX_DEPTH)


def _tensors(content: memoryview, message: int, depth: int) -> Iterator[ExternalData]:
    if not depth:
        raise ValueError("messages nested too deep")
    if message == TENSOR:
        yield from tensor_places(content)
        return
    if message == GRAPH:
        check_made_constants(content)
    for number, value in fields(content):
        if number in CHILDREN[message] and isinstance(value, memoryview):
            yield from _tensors(value, CHILDREN[message][number], depth - 1)


def tensor_places(content: memoryview) -> Iterator[ExternalData]:
    """Where a serialised TensorProto says that its values are, if that is elsewhere; raises ValueError as `fields`."""
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
