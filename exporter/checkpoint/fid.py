"""FiD (Izacard and Grave 2021), as facebookresearch's code saves it: a T5 whose encoder stands in two wrappers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.checkpoint.config import CheckpointConfig
from exporter.checkpoint.convert import t5_tensors
from exporter.checkpoint.huggingface import joined_config
from exporter.checkpoint.pickle_files import PickleFiles
from exporter.checkpoint.t5_shape import read_t5_shape
from runtime.contract import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convert_fid"]

WRAPPED = re.compile(r"encoder\.encoder\.(?:block\.(?P<layer>\d+)\.module\.)?(?P<rest>.*)")
FIELDS = {
    "input_template": "question: {question} title: {title} context: {text}",
    "passage_length": 250,
    "num_retrieved": 100,
    "max_new_tokens": 49,
}
"""The paper's passages and their length in tokens; its answers have 50 tokens at most, the start token included."""


def convert_fid(source: Path, fields: Mapping[str, Any]) -> tuple[CheckpointConfig, Mapping[str, Tensor]]:
    """Read the directory that FiD's `save` wrote, `config.json` and `pytorch_model.bin`, as a `fid` checkpoint.

    Question and passage are one text under one limit, as FiD trains; `fields` replace the paper's lengths and counts.
    Raises CheckpointError as `convert_t5` does, and for a T5 whose encoder is not FiD's.
    """
    shape = read_t5_shape(source)
    subject = f"FiD checkpoint {source}"
    config = joined_config(shape, FIELDS | dict(fields), subject=subject)
    return config, t5_tensors(_Unwrapped(PickleFiles(source), subject), config, shape, subject=subject)


class _Unwrapped:
    """FiD's tensors by T5's names: its EncoderWrapper and CheckpointWrapper each add a name."""

    def __init__(self, files: PickleFiles, subject: str) -> None:
        self._files = files
        self._names = {_t5_name(name): name for name in files.shapes()}
        if len(self._names) < len(files.shapes()):
            raise CheckpointError(
                subject, expected="the encoder once", found="some of it both wrapped and not",
                fix="save the model's state_dict alone",
            )
        if not any(name.startswith("encoder.encoder.block.") for name in self._names.values()):
            raise CheckpointError(
                subject, expected="FiD's names, encoder.encoder.block.0.module and so on", found="none of them",
                fix="convert a plain T5 with --from huggingface",
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found = self._files.shapes()
        return {name: found[origin] for name, origin in self._names.items()}

    def tensor(self, name: str) -> Tensor:
        return self._files.tensor(self._names[name])


def _t5_name(name: str) -> str:
    if not (match := WRAPPED.fullmatch(name)):
        return name
    return f"encoder.block.{match['layer']}.{match['rest']}" if match["layer"] else f"encoder.{match['rest']}"
