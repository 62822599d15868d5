"""T5X trees in flax's msgpack, taken apart and put together again by tests: without flax, which they do not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np

__all__ = ["pack", "packed_array", "read_tree", "write_tree"]

NDARRAY = 1


def pack(directory: Path, content: object) -> Path:
    """Write `content` as the file `checkpoint` of a new directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "checkpoint").write_bytes(msgpack.packb(content))
    return directory


def packed_array(array: np.ndarray) -> msgpack.ExtType:
    """An array as flax packs it."""
    return msgpack.ExtType(NDARRAY, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def write_tree(directory: Path, arrays: dict[str, Any]) -> Path:
    """Write parameters, by name with slashes, as T5X writes what is not partitioned; other values go in as they are."""
    target: dict[str, Any] = {}
    for name, value in arrays.items():
        *folders, last = name.split("/")
        place = target
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = packed_array(value) if isinstance(value, np.ndarray) else value
    return pack(directory, {"version": 3, "optimizer": {"target": target, "state": {}}})


def read_tree(directory: Path) -> dict[str, np.ndarray]:
    """The parameters of a file `checkpoint` whose arrays lie in it, whole or in pieces, by name with slashes."""
    arrays: dict[str, np.ndarray] = {}

    def unpack(value: msgpack.ExtType) -> np.ndarray:
        shape, dtype, content = msgpack.unpackb(value.data)
        return np.frombuffer(content, dtype).reshape(shape)

    def walk(tree: dict[str, Any], name: str) -> None:
        if "__msgpack_chunked_array__" in tree:
            pieces = [unpack(piece) for piece in tree["chunks"].values()]
            arrays[name] = np.concatenate(pieces).reshape(list(tree["shape"].values()))
            return
        for key, value in tree.items():
            below = f"{name}/{key}".lstrip("/")
            if isinstance(value, dict):
                walk(value, below)
            else:
                arrays[below] = unpack(value)

    walk(msgpack.unpackb((directory / "checkpoint").read_bytes())["optimizer"]["target"], "")
    return arrays
