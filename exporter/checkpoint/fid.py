"""FiD readers (Izacard and Grave 2021): as facebookresearch's code saves them, as Hugging Face T5s, as Atlas."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint import atlas
from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.from_t5 import t5_tensors
from glimmer_export.exporter.checkpoint.generation import read_generation
from glimmer_export.exporter.checkpoint.huggingface import joined_config
from glimmer_export.exporter.checkpoint.t5_shape import CONFIG, read_t5_shape
from glimmer_export.exporter.checkpoint.weight_files import RenamedFiles, changes_attention, open_weights, say_left_out
from glimmer_export.runtime.contract import CheckpointError, is_there
from glimmer_export.runtime.contract.manifest import MAX_LENGTH
from glimmer_export.runtime.contract.records import read_json
from glimmer_export.runtime.contract.templates import FID_TEMPLATE

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convert_fid"]

WRAPPED = re.compile(r"encoder\.encoder\.(?:block\.(?P<layer>\d+)\.module\.)?(?P<rest>.*)")
FIELDS = {
    "input_template": FID_TEMPLATE, "passage_length": 250, "num_retrieved": 100, "max_new_tokens": 49,
    "question_eos": False, "passage_eos": False,
}
"""The paper's passages and their length in tokens; its answers have 50 tokens at most, the start token included.

FiD's code pins transformers 3.0.2, whose tokenizer adds no EOS; FastRAG turns its own release's EOS off.
"""
TOKENIZER_CONFIG = "tokenizer_config.json"
T5_LENGTH = 512


def convert_fid(
    source: Path, fields: Mapping[str, Any], on_note: Callable[[str], None] = lambda _: None
) -> tuple[CheckpointConfig, Mapping[str, Tensor]]:
    """Read a FiD reader's directory as a `fid` checkpoint; `fields` replace what the layout says.

    - facebookresearch's FiD, what its `save` wrote: a T5 whose encoder stands in two wrappers. Its cross-attention has
      a table of relative positions, which is carried unless it is constant.
    - a Hugging Face T5, as FastRAG writes and reads it (Intel/fid_flan_t5_base_nq): T5's names. Passages are cut where
      its tokenizer says.
    - Atlas, a `model.pth.tar`: `atlas.convert_atlas`.

    Question and passage are one text under one limit. `on_note` is told how the directory was taken and what is left
    out. Raises CheckpointError as `convert_t5` does, and for a generation config that asks for more than greedy
    decoding.
    """
    if is_there(source / atlas.FILE):
        return atlas.convert_atlas(source, fields, on_note)
    shape = read_t5_shape(source)
    subject = f"FiD checkpoint {source}"
    files = open_weights(source)
    generation = read_generation(source)
    if any(WRAPPED.fullmatch(name) for name in files.shapes()):
        files = RenamedFiles(files, _t5_name, subject=subject)
        # Its code gives `generate` the length; of the rest the config's own settings hold.
        layout = FIELDS | {name: value for name, value in generation.items() if name != "max_new_tokens"}
        layout["cross_attention_bias"] = changes_attention(files)
        _say_release(source, on_note)
    else:
        on_note("the names are T5's own, so passages are read as FastRAG reads them: without EOS, and without a table "
                "of the cross-attention")  # fmt: skip
        layout = FIELDS | generation | {"passage_length": _tokenizer_limit(source)}
    config = joined_config(shape, layout | dict(fields), subject=subject)
    tensors = t5_tensors(files, config, shape, subject=subject)
    if not config.cross_attention_bias:
        say_left_out(files, on_note)
    return config, tensors


def _t5_name(name: str) -> str:
    """Without FiD's EncoderWrapper and CheckpointWrapper, which each add a name."""
    if not (match := WRAPPED.fullmatch(name)):
        return name
    return f"encoder.block.{match['layer']}.{match['rest']}" if match["layer"] else f"encoder.{match['rest']}"


def _say_release(source: Path, on_note: Callable[[str], None]) -> None:
    """Note that the config was written by a release that FiD's code does not run with: its tokenizer adds EOS."""
    config = read_json(source / CONFIG, error=CheckpointError, fix="copy it again", strict=False)
    release = config.get("transformers_version")
    if release is not None:
        on_note(
            f"{CONFIG} was written by transformers {release}; passages are read as FiD's own 3.0.2 reads them, without "
            'EOS: put {"passage_eos": true} into --config if the weights were trained with it'
        )


def _tokenizer_limit(source: Path) -> int:
    """Tokens that FastRAG cuts passages to: what the tokenizer's config says, else T5's own."""
    try:
        limit = read_json(source / TOKENIZER_CONFIG, error=CheckpointError, fix="", strict=False)["model_max_length"]
    except (CheckpointError, KeyError):
        return T5_LENGTH
    return limit if isinstance(limit, int) and 2 <= limit <= MAX_LENGTH else T5_LENGTH
