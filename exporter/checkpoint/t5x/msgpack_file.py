"""T5X's file `checkpoint`: a tree in flax's msgpack, with arrays in it or references to arrays stored beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.runtime.contract import CheckpointError, read_limited
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["InlineArray", "read_msgpack"]

CHUNKED = "__msgpack_chunked_array__"
NDARRAY = 1
"""Code of flax's msgpack extension for an array: the packed triple of shape, dtype and bytes in C order."""
PLACEHOLDER = "PLACEHOLDER://"
"""What Orbax's older releases leave in the place of an array that is stored beside the file."""
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MAX_MSGPACK_BYTES = 48 << 30
"""A T5 of 11 billion parameters has 44 GB in float32; the arrays may all lie in this one file, which is held whole."""
FIX = "copy the checkpoint again from its source"


@dataclass(frozen=True)
class InlineArray:
    """An array that lies in the file: flat pieces, which together have the elements of `shape`."""

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[bytes, ...]

    def tensor(self) -> Tensor:
        """The array, in memory of its own."""
        import torch

        content = bytearray().join(self.pieces)
        return torch.frombuffer(content, dtype=getattr(torch, self.dtype)).reshape(self.shape)


def read_msgpack(path: Path) -> dict[tuple[str, ...], InlineArray | None]:
    """The arrays of the tree's `target`, by path from `target` on; None if an array is stored beside the file.

    Where a reference points is not looked at: it may name a bucket, or a place outside of the directory. Raises
    CheckpointError for a file that is unreadable, truncated or of another structure, and for an array whose bytes
    are not those of its shape and dtype.
    """

    def refused(reason: str) -> CheckpointError:
        return CheckpointError(str(path), expected="a whole msgpack file, as flax writes it", found=reason, fix=FIX)

    content = read_limited(
        path, limit_bytes=MAX_MSGPACK_BYTES, error=CheckpointError, subject=str(path), fix=FIX,
        expected="a whole msgpack file, as flax writes it",
    )
    tree = _unpackb(content, refused)
    if isinstance(tree, dict):
        tree = tree.get("optimizer", tree)
    target = tree.get("target") if isinstance(tree, dict) else None
    if not isinstance(target, dict):
        keys = ", ".join(sorted(map(str, tree))) if isinstance(tree, dict) else type(tree).__name__
        raise CheckpointError(
            str(path), expected="a tree with the parameters at optimizer/target", found=keys or "an empty tree",
            fix="name the directory of one step that T5X saved",
        )
    return {("target", *names): _array(value, f"{path}, {'/'.join(names)}") for names, value in _leaves(target, path)}


def _unpackb(content: bytes, named: Callable[[str], CheckpointError]) -> Any:
    """What msgpack packed; if it cannot be unpacked, what `named` makes of the reason is raised.

    Lengths beyond the content's are refused by msgpack before anything is allocated for them.
    """
    import msgpack

    raised = (ValueError, MemoryError, msgpack.UnpackException)
    with LibraryErrors(lambda kind: issubclass(kind, raised), lambda error: named(first_line(error))):
        return msgpack.unpackb(content)


def _leaves(target: dict[str, Any], path: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything in the tree that is no tree itself; without recursion, which a hostile file could exhaust."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), target)]
    while pending:
        names, value = pending.pop()
        if isinstance(value, dict) and CHUNKED not in value and not _is_reference(value):
            for key, below in value.items():
                if not isinstance(key, str) or not key or {"/", "\\", "\0"} & set(key):
                    raise CheckpointError(
                        str(path), expected="names without a slash", found=repr(key)[:80],
                        fix="do not use this file; get it again from its source",
                    )
                pending.append(((*names, key), below))
        elif value is not None:
            yield names, value


def _is_reference(value: object) -> bool:
    """Whether this is a tensorstore spec; until its release 0.1.14 the path stood in the spec itself."""
    if isinstance(value, dict):
        return isinstance(value.get("driver"), str) and ("kvstore" in value or "path" in value)
    return isinstance(value, str) and value.startswith(PLACEHOLDER)


def _array(value: Any, subject: str) -> InlineArray | None:
    if _is_reference(value):
        return None
    if not isinstance(value, dict):
        return _unpacked(value, subject)
    shape, chunks = _sequence(value.get("shape")), _sequence(value.get("chunks"))
    pieces = [_unpacked(chunk, subject) for chunk in chunks or ()]
    if not pieces or shape is None or len({piece.dtype for piece in pieces}) != 1:
        raise _damaged(subject, "pieces of one array", "none, or of several dtypes")
    return _checked(shape, pieces[0].dtype, tuple(content for piece in pieces for content in piece.pieces), subject)


def _sequence(value: Any) -> list[Any] | None:
    """What flax writes for a tuple: a mapping of "0", "1" and so on."""
    if not isinstance(value, dict) or list(value) != [str(place) for place in range(len(value))]:
        return None
    return list(value.values())


def _unpacked(value: Any, subject: str) -> InlineArray:
    import msgpack

    if not isinstance(value, msgpack.ExtType) or value.code != NDARRAY:
        raise _damaged(subject, "an array, or a reference to one", type(value).__name__)
    wanted = "an array's shape, dtype and bytes"
    triple = _unpackb(value.data, partial(_damaged, subject, wanted))
    if not isinstance(triple, list) or len(triple) != 3:
        raise _damaged(subject, wanted, type(triple).__name__)
    shape, dtype, content = triple
    if not isinstance(content, bytes):
        raise _damaged(subject, wanted, type(content).__name__)
    return _checked(shape, dtype, (content,), subject)


def _checked(shape: Any, dtype: Any, pieces: tuple[bytes, ...], subject: str) -> InlineArray:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise _damaged(subject, "a shape", repr(shape)[:80])
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise CheckpointError(
            subject, expected=" or ".join(ITEM_BYTES), found=repr(dtype)[:80], fix="save the weights in one of these"
        )
    wanted, found = math.prod(shape) * ITEM_BYTES[dtype], sum(map(len, pieces))
    if wanted != found:
        raise _damaged(subject, f"{wanted} bytes, for {dtype} of shape {shape}", str(found))
    return InlineArray(tuple(shape), dtype, pieces)


def _damaged(subject: str, expected: str, found: str) -> CheckpointError:
    return CheckpointError(subject, expected=expected, found=found, fix=FIX)
