"""Tensors in `pytorch_model.bin` files, read so that nothing in them is executed."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.pickle_opcodes import UnfitPickleError, check_pickles
from glimmer_export.exporter.checkpoint.weight_index import weight_paths
from glimmer_export.runtime.contract import CheckpointError, check_regular
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "INDEX", "SINGLE", "PickleFiles", "PickledTensors", "check_dense", "load_failure", "load_pickle", "torch_errors",
]

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
    """Raise CheckpointError where a pickle calls `bytearray`, which torch allows: it would be of any size.

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
