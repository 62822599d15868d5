"""Tensors one at a time -> a safetensors file, which the format's own library writes only from all of them at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint.lazy_tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["STORED_DTYPES", "write_safetensors"]

STORED_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The format's names of the dtypes that models are stored in, and torch's."""
ALIGNMENT = 8
"""Of the first tensor; so that all are aligned, those of the widest dtype come first."""


def write_safetensors(path: Path, specs: Mapping[str, TensorSpec], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write the tensors of `specs`, which come in that order, widest dtype first."""
    import torch

    names = {getattr(torch, dtype): name for name, dtype in STORED_DTYPES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, spec in specs.items():
        begin, end = end, end + spec.num_bytes
        header[name] = {"dtype": names[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, (expected, tensor) in zip(specs, tensors, strict=True):
            if expected != name or TensorSpec(tuple(tensor.shape), tensor.dtype) != specs[name]:
                raise ValueError(f"tensor {expected} in the place of {name}, or not as it was announced")
            stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
