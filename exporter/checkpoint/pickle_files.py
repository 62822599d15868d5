"""Tensors in `pytorch_model.bin` files, read so that nothing in them is executed.

What a pickle would make is told by its opcodes before any is run. A tuple of a tuple twice, of a tuple twice, has forty
opcodes and a million million parts, all of which are visited to make it a key; one that nests a million deep ends the
process.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.weight_index import weight_paths
from glimmer_export.runtime.contract import CheckpointError, check_regular
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "INDEX", "SINGLE", "PickleFiles", "PickledTensors", "UnfitPickleError", "check_dense", "check_pickles",
    "load_failure", "load_pickle", "torch_errors",
]  # fmt: skip

MAX_OPCODES = 1 << 19
"""A tensor takes some forty."""
MAX_PARTS = 1 << 20
"""Of one tuple, those of its tuples counted as often as they stand there: what rebuilds a tensor has twenty."""
MAX_KEY_PARTS = 1 << 24
"""Of all that is made a key, or handed to a class."""
MAX_DEPTH = 100
MARK = (-1, -1)
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
CONTAINERS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""Opcodes that fill what is on the stack already."""
PAIRS = {"SETITEM", "SETITEMS", "DICT"}
CALLS = {"REDUCE", "NEWOBJ", "ADDITEMS", "FROZENSET"}

Value = tuple[int, int]
"""Parts, and how deep they nest."""


class UnfitPickleError(ValueError):
    """What is not a pickle, or has values that would take without end; `expected` says what it may have."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(found)
        self.expected = expected


def check_pickles(content: bytes, *, most: int) -> None:
    """Walk at most so many pickles, one behind the other; raises UnfitPickleError."""
    stream = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of escapes in a text that it reads and we do not
        for _ in range(most):
            if stream.tell() == len(content):
                return
            _check_pickle(stream)


def _check_pickle(stream: io.BytesIO) -> None:
    machine = _Machine()
    for number, (opcode, argument) in enumerate(_opcodes(stream)):
        if number >= MAX_OPCODES:
            raise UnfitPickleError(f"a pickle of at most {MAX_OPCODES} opcodes", "more")
        machine.take(opcode, argument)


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    walk = pickletools.genops(stream)
    while True:
        try:
            found = next(walk, None)
        except ValueError as reason:
            raise _damaged(str(reason)) from None
        if found is None:
            return
        yield found[0], found[1]


class _Machine:
    """The stack and the memo, with the size of each value in its place."""

    def __init__(self) -> None:
        self._stack: list[Value] = []
        self._memo: dict[object, Value] = {}
        self._key_parts = 0

    def take(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Do what an opcode does to them."""
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._last()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo.get(argument, (1, 1)))
        elif name == "DUP":
            self._stack.append(self._last())
        elif name == "MARK":
            self._stack.append(MARK)
        else:
            taken = self._taken(opcode)
            if opcode.stack_after:
                self._stack.append(self._made(name, taken))

    def _last(self) -> Value:
        if not self._stack or self._stack[-1] == MARK:
            raise _damaged("an empty stack")
        return self._stack[-1]

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[Value]:
        before = opcode.stack_before
        taken: list[Value] = []
        if pickletools.stackslice in before:
            while self._stack and self._stack[-1] != MARK:
                taken.append(self._stack.pop())
            if not self._stack:
                raise _damaged("no mark")
            self._stack.pop()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self._last()  # is there one
            taken.append(self._stack.pop())
        return taken[::-1]

    def _made(self, name: str, taken: list[Value]) -> Value:
        parts = 1 + sum(value[0] for value in taken)
        if name in CONTAINERS:  # the first nests no deeper for being filled
            depth = max([taken[0][1], *(value[1] + 1 for value in taken[1:])])
        else:
            depth = 1 + max((value[1] for value in taken), default=0)
        if depth > MAX_DEPTH:
            raise UnfitPickleError(f"values that nest {MAX_DEPTH} deep at most", "deeper ones")
        if name in TUPLES and parts > MAX_PARTS:
            raise UnfitPickleError(f"tuples of at most {MAX_PARTS} parts", "one of more, in itself again and again")
        if name in PAIRS:
            keys = taken[0 if name == "DICT" else 1 :: 2]
            self._key_parts += sum(value[0] for value in keys)
        elif name in CALLS:
            self._key_parts += sum(value[0] for value in taken[1:])
        if self._key_parts > MAX_KEY_PARTS:
            raise UnfitPickleError(f"keys of at most {MAX_KEY_PARTS} parts", "more")
        return min(parts, MAX_PARTS + 1), depth


def _damaged(found: str) -> UnfitPickleError:
    return UnfitPickleError("a whole file of tensors, as torch.save writes it", found)


SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
ZIP = b"PK\x03\x04"
"""What torch knows a zip file by."""
UNREADABLE = (
    zipfile.BadZipFile, OSError, NotImplementedError, EOFError, zlib.error, RuntimeError, UnicodeDecodeError,
)
"""What Python's reader raises for a file that is no zip file, or a damaged one."""
MAX_PICKLE_BYTES = 64 << 20
"""Of names and sizes: the tensors' values lie beside them."""
OLDER_PICKLES = 5
"""In a file older than the zip format: a number, a version, the system, the content, and the names of the storages."""
UNTRUSTED = "do not load it; take the weights as safetensors, or from a source you trust"
MAX_SHARING = 4
"""An embedding has so many names in a tied T5: its own, one in each stack, and the head's."""
MIN_SHARED_BYTES = 64 << 20
RAISED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, pickle.PickleError, struct.error, zipfile.BadZipFile, zlib.error,
)
"""What torch.load was seen to raise for damaged files, and zipfile when it looks one through."""
REFUSED = re.compile(r"unsupported (?:global: )?GLOBAL ([\w.]+)", re.IGNORECASE)
"""How torch says that a pickle names something other than tensors."""


class PickledTensors:
    """Tensors by name, as one pickle held them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by name."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype it was stored in; a copy, since views of one storage may lie in a pickle."""
        return self._tensors[name].clone()


class PickleFiles(PickledTensors):
    """The tensors of a directory that holds `pytorch_model.bin` or `pytorch_model.bin.index.json`.

    Raises CheckpointError for a missing or damaged file, for a pickle that needs more than tensors to be rebuilt (it
    is refused unread: a pickle can run any code), and for an index that names a file outside the directory.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__({})
        for path in weight_paths(directory, single=SINGLE, index=INDEX):
            for name, value in _load(path).items():
                if name in self._tensors:
                    raise CheckpointError(
                        str(path), expected="tensors that no other shard holds", found=f"{name} a second time",
                        fix="copy the shards again, from one checkpoint",
                    )
                self._tensors[name] = value


def load_pickle(path: Path, *, safe: Sequence[type] = ()) -> Any:
    """What torch.save wrote: tensors, plain values, and objects of the classes `safe`, whose attributes are set.

    Raises CheckpointError for a file that is damaged or that names anything else, of which nothing is run.
    """
    import torch

    check_regular(path, error=CheckpointError, subject=str(path), fix="copy the weights again")
    _check_pickles(path)

    def refused(error: BaseException) -> CheckpointError:
        if REFUSED.search(str(error)):
            return CheckpointError(
                str(path), expected="tensors and nothing else", found=load_failure(error),
                fix=UNTRUSTED,
            )
        return CheckpointError(
            str(path), expected="a whole file of tensors, as torch.save writes it", found=load_failure(error),
            fix="copy the weights again",
        )

    with torch.serialization.safe_globals(list(safe)), torch_errors(refused):
        # Files older than the zip format cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def torch_errors(named: Callable[[BaseException], Exception]) -> LibraryErrors:
    """For torch.load, and for the looking through a zip file before it; around nothing of ours.

    torch reads a pickle by a machine of its own in Python, which fails as its code does where the pickle makes no
    sense: an empty stack is an IndexError, a method of what is no tensor an AttributeError.
    """
    return LibraryErrors(lambda kind: issubclass(kind, RAISED), named)


def _check_pickles(path: Path) -> None:
    """Raise CheckpointError if a pickle calls `bytearray`, which torch allows: it would be of any size.

    So it does where the values that it makes would be visited without end, and for a zip file that cannot be looked
    through. What else is no pickle is left to torch.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = [item for item in archive.infolist() if item.filename.endswith("data.pkl")]
            if (size := sum(record.file_size for record in records)) > MAX_PICKLE_BYTES:
                raise CheckpointError(
                    str(path), expected=f"a pickle of at most {MAX_PICKLE_BYTES} bytes", found=str(size),
                    fix="save the model's state_dict alone",
                )
            contents, most = list(map(archive.read, records)), 1
    except UNREADABLE as reason:
        with path.open("rb") as stream:
            contents, most = [stream.read(MAX_PICKLE_BYTES)], OLDER_PICKLES  # the older format begins with its pickles
        if contents[0].startswith(ZIP):  # torch's own reader may take what Python's does not
            raise CheckpointError(
                str(path), expected="a whole file of tensors", found=first_line(reason),
                fix="copy it again from its source",
            ) from None
    for content in contents:
        if b"bytearray" in content:
            raise CheckpointError(
                str(path), expected="tensors and nothing else", found="a pickle that calls bytearray", fix=UNTRUSTED
            )
        try:
            check_pickles(content, most=most)
        except UnfitPickleError as reason:
            raise CheckpointError(str(path), expected=reason.expected, found=str(reason), fix=UNTRUSTED) from None


def _load(path: Path) -> dict[str, Tensor]:
    import torch

    content = load_pickle(path)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise CheckpointError(
            str(path), expected="a mapping of names to tensors", found=_content(content),
            fix="save the model's state_dict alone",
        )
    check_dense(content, subject=str(path))
    return content


def check_dense(tensors: Mapping[str, Tensor], *, subject: str) -> None:
    """Raise CheckpointError for a tensor that is sparse, nested or without values: a pickle may hold these too.

    So it may one value that stands for any number, and one tensor under any number of names: a file of a kilobyte would
    fill the memory, or the disk.
    """
    import torch

    stated, held = 0, {}
    for name, tensor in tensors.items():
        if tensor.is_meta:
            found = "no values (the device meta)"
        elif tensor.layout != torch.strided or tensor.is_nested:
            found = f"{'nested' if tensor.is_nested else str(tensor.layout).removeprefix('torch.')} tensor"
        elif tensor.untyped_storage().nbytes() < tensor.numel() * tensor.itemsize:
            found = f"{tensor.untyped_storage().nbytes()} bytes for {tensor.numel()} values"
        else:
            stated += tensor.numel() * tensor.itemsize
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            continue
        raise CheckpointError(
            f"{subject}, tensor {name}", expected="a dense tensor with its values", found=found,
            fix="save the model's state_dict once all of it is loaded, in dense tensors",
        )
    if stated > max(MIN_SHARED_BYTES, MAX_SHARING * sum(held.values())):
        raise CheckpointError(
            subject, expected=f"tensors of which {MAX_SHARING} share their values at most",
            found=f"{stated} bytes of tensors in {sum(held.values())} of values",
            fix="save the model's state_dict once all of it is loaded, in tensors of their own",
        )


def load_failure(error: BaseException) -> str:
    """What is wrong, of an error of torch.load; in front of that is advice that would undo the protection."""
    if refused := REFUSED.search(str(error)):
        return f"a pickle that calls {refused.group(1)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Weights only load failed"):
        return lines[1]
    return lines[0] if lines else type(error).__name__


def _content(content: object) -> str:
    if isinstance(content, dict):
        return f"a mapping with the keys {', '.join(map(str, list(content)[:4]))}"
    return type(content).__name__
