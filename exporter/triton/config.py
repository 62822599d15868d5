"""The text of config.pbtxt, in which Triton reads what a model takes and gives, and model.py its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping

from glimmer_export.exporter.files.publish import TRITON_MARK
from glimmer_export.runtime.contract import OptionError

__all__ = ["check_name", "config_text"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""A folder's name and a part of URLs."""
TEXT = """\
{mark}; model.py beside it says what its tensors are.
name: {name}
backend: "python"
max_batch_size: {max_batch_size}
input [
  {{ name: "question", data_type: TYPE_STRING, dims: [ 1 ] }},
  {{ name: "top_k", data_type: TYPE_INT32, dims: [ 1 ], optional: true }},
  {{ name: "top_m", data_type: TYPE_INT32, dims: [ 1 ], optional: true }}
]
output [
  {{ name: "answer", data_type: TYPE_STRING, dims: [ 1 ] }},
  {{ name: "record", data_type: TYPE_STRING, dims: [ 1 ] }}
]
# An instance that is idle starts at once; what comes while it is busy goes into its next batch.
dynamic_batching {{ }}
# The session chooses its device itself, the first GPU that it sees, and its threads share the cores.
instance_group [ {{ count: 1, kind: KIND_CPU }} ]
{parameters}"""
PARAMETER = "parameters {{ key: {name}, value: {{ string_value: {value} }} }}\n"
ESCAPES = {ord("\\"): r"\\", ord('"'): r"\"", **{code: f"\\{code:03o}" for code in (*range(32), 127)}}


def config_text(name: str, max_batch_size: int, parameters: Mapping[str, str]) -> str:
    """The configuration of a model of this name; `parameters` are what model.py reads."""
    rows = [PARAMETER.format(name=_quoted(key), value=_quoted(value)) for key, value in parameters.items()]
    return TEXT.format(
        mark=TRITON_MARK, name=_quoted(name), max_batch_size=max_batch_size, parameters="".join(rows)
    )


def check_name(name: str) -> str:
    """The name of a model; raises OptionError for one that is no plain word."""
    if not NAME.fullmatch(name):
        raise OptionError(
            "--name", expected="letters, digits, `_`, `-` and `.`, at most 100, none of the last two first",
            found=repr(name), fix="choose another",
        )
    return name


def _quoted(text: str) -> str:
    """A string of protobuf's text format."""
    return f'"{text.translate(ESCAPES)}"'
