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

from exporter.checkpoint.weight_index import weight_paths
from runtime.contract import CheckpointError, check_regular
from runtime.contract.library_errors import LibraryErrors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "INDEX", "SINGLE", "PickleFiles", "PickledTensors", "check_dense", "load_failure", "load_pickle", "torch_errors",
]

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
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

    def refused(error: BaseException) -> CheckpointError:
        if REFUSED.search(str(error)):
            return CheckpointError(
                str(path), expected="tensors and nothing else", found=load_failure(error),
                fix="do not load it; take the weights as safetensors, or from a source you trust",
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

    So it may one value that stands for any number: a file of a kilobyte would fill the memory.
    """
    import torch

    for name, tensor in tensors.items():
        if tensor.is_meta:
            found = "no values (the device meta)"
        elif tensor.layout != torch.strided or tensor.is_nested:
            found = f"{'nested' if tensor.is_nested else str(tensor.layout).removeprefix('torch.')} tensor"
        elif tensor.untyped_storage().nbytes() < tensor.numel() * tensor.itemsize:
            found = f"{tensor.untyped_storage().nbytes()} bytes for {tensor.numel()} values"
        else:
            continue
        raise CheckpointError(
            f"{subject}, tensor {name}", expected="a dense tensor with its values", found=found,
            fix="save the model's state_dict once all of it is loaded, in dense tensors",
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
