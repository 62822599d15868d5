"""A graph whose weights lie elsewhere, as its content with their addresses: for a reader that follows no links.

A graph's files may be links that lead out of its folder, to where the user's system put them. OpenVINO refuses such
external data, but takes what ONNX Runtime's own tools write for weights that are in memory: a location that is no path,
and the address in the place of the offset. So the files are mapped, and nothing is copied but the graph itself.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from glimmer_export.runtime.contract.files import map_file
from glimmer_export.runtime.external_data import (
    CHILDREN,
    EXTERNAL_DATA,
    FIXED32,
    FIXED64,
    LENGTH,
    MODEL,
    TENSOR,
    VARINT,
    ExternalData,
    external_data,
    tensor_places,
    varint,
)

__all__ = ["mapped_model"]

IN_MEMORY = b"*/_ORT_MEM_ADDR_/*"
"""onnxruntime::utils::kTensorProtoMemoryAddressTag, which OpenVINO's reader knows too."""
KEY, VALUE = 1, 2
WIDTHS = {FIXED64: 8, FIXED32: 4}

_Data = Callable[[ExternalData], "tuple[int, int]"]
"""(place) -> address and length of its bytes."""


def mapped_model(graph: Path) -> tuple[bytes, list[mmap.mmap]] | None:
    """The content of a graph file, verified, with the addresses of its weights, and what is mapped for as long as it.

    None if all that it reads lies in its own folder. Raises OSError.
    """
    folder = graph.parent
    if not any(path.is_symlink() for path in (folder, *folder.iterdir())):
        return None
    content = map_file(graph)
    try:
        names = {data.location.decode() for data in external_data(memoryview(content or b""))}
    except ValueError:  # no graph, which the reader has words for
        return None
    real = folder.resolve()
    if content is None or all((folder / name).resolve().is_relative_to(real) for name in names):
        return None
    files = {name: file for name in sorted(names) if (file := map_file(folder / name)) is not None}
    return _with_addresses(memoryview(content), MODEL, _finder(files)), list(files.values())


def _finder(files: Mapping[str, mmap.mmap]) -> _Data:
    begins = {name: np.frombuffer(file, np.uint8).ctypes.data for name, file in files.items()}

    def found(data: ExternalData) -> tuple[int, int]:
        name = data.location.decode()
        return begins[name] + data.offset, data.length or len(files[name]) - data.offset

    return found


def _with_addresses(content: memoryview, message: int, found: _Data) -> bytes:
    """A message with other places of what is outside it; the rest as it stands."""
    places = list(tensor_places(content)) if message == TENSOR else []
    children = CHILDREN.get(message, {})
    made, place = bytearray(), 0
    while place < len(content):
        begin = place
        tag, place = varint(content, place)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            _, place = varint(content, place)
        elif wire in WIDTHS:
            place += WIDTHS[wire]
        elif wire == LENGTH:
            length, place = varint(content, place)
            value, place = content[place : place + length], place + length
            if places and number == EXTERNAL_DATA:
                continue
            if number in children:
                made += _field(number, _with_addresses(value, children[number], found))
                continue
        made += content[begin:place]
    for data in places[-1:]:
        address, length = found(data)
        for key, text in ((b"location", IN_MEMORY), (b"offset", b"%d" % address), (b"length", b"%d" % length)):
            made += _field(EXTERNAL_DATA, _field(KEY, key) + _field(VALUE, text))
    return bytes(made)


def _field(number: int, content: bytes) -> bytes:
    return _varint_of(number << 3 | LENGTH) + _varint_of(len(content)) + content


def _varint_of(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])
