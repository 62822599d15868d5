"""A plain Hugging Face T5 that reads question and passage as one text, with its own generation config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.config import CheckpointConfig, parse_config
from glimmer_export.exporter.checkpoint.from_t5 import t5_tensors
from glimmer_export.exporter.checkpoint.generation import read_generation
from glimmer_export.exporter.checkpoint.t5_shape import CONFIG, T5Shape, read_t5_shape
from glimmer_export.exporter.checkpoint.weight_files import open_weights, say_left_out
from glimmer_export.runtime.contract import CheckpointError
from glimmer_export.runtime.contract.records import read_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convert_huggingface", "joined_config"]

FIELDS = {"input_template": "question: {question} context: {text}", "passage_length": 512, "num_retrieved": 1}
"""T5's own prompt for SQuAD (Raffel et al. 2020, appendix D.15), and the length that it was trained with."""


def convert_huggingface(
    source: Path, fields: Mapping[str, Any], on_note: Callable[[str], None] = lambda _: None
) -> tuple[CheckpointConfig, Mapping[str, Tensor]]:
    """Read a T5 in Hugging Face's layout as a `fid` checkpoint; `fields` replace what it is read with.

    Special tokens and the answer's length are those of its `generation_config.json`, if there is one. `on_note` is
    told what is left out. Raises CheckpointError as `convert_t5` does, for a generation config that asks for more than
    greedy decoding, and for a FiD, which reads another text.
    """
    shape = read_t5_shape(source)
    _refuse_fid(source)
    subject = f"T5 checkpoint {source}"
    config = joined_config(shape, FIELDS | read_generation(source) | dict(fields), subject=subject)
    files = open_weights(source)
    tensors = t5_tensors(files, config, shape, subject=subject)
    if not config.cross_attention_bias:
        say_left_out(files, on_note)
    return config, tensors


def joined_config(shape: T5Shape, fields: Mapping[str, Any], *, subject: str) -> CheckpointConfig:
    """The config of a T5 of this shape that reads question and passage as one text; `fields` are set over that.

    The question alone may be as long as the text. Raises CheckpointError if a field is wrong, or not of a `fid`.
    """
    if fields.get("architecture", "fid") != "fid":
        raise CheckpointError(
            subject, expected="the architecture fid", found=repr(fields["architecture"]),
            fix="partition a T5 into another with `glimmer-export init --from-t5`",
        )
    joined = {
        "architecture": "fid", "num_memory_layers": 0, "num_stage_a_layers": 0, "num_stage_b_layers": shape.num_layers,
        "question_layout": "joined", "question_length": fields.get("passage_length"), "question_eos": True,
        "passage_eos": True,
    }
    return parse_config(shape.checkpoint_fields() | joined | dict(fields), subject=subject)


def _refuse_fid(source: Path) -> None:
    """Raise CheckpointError if the config names a FiD's class: its names are T5's, what it reads is not."""
    classes = read_json(source / CONFIG, error=CheckpointError, fix="copy it again", strict=False).get("architectures")
    for name in classes if isinstance(classes, list) else ():
        if "fid" in str(name).lower() or "fusionindecoder" in str(name).lower():
            raise CheckpointError(
                str(source / CONFIG), expected="a T5's class in architectures", found=str(name),
                fix="convert it with --from fid",
            )
