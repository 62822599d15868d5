"""The worlds to train on: the shape of a model that learns each, and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.demo.hard_relations import HARD_KINDS
from glimmer_export.exporter.demo.relations import KINDS, Kind
from glimmer_export.exporter.demo.tokenizer import build_tokenizer, vocabulary

if TYPE_CHECKING:
    from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = ["demo_start", "hard_start"]


def demo_start(architecture: str) -> tuple[CheckpointConfig, bytes]:
    """The demo model's config and tokenizer.json; a LUMEN has the same layers, all of its live ones in stage B.

    Raises CheckpointError for another architecture's name.
    """
    return _start(architecture, KINDS, passage_length=40, num_retrieved=10, num_selected=3, max_new_tokens=8)


def hard_start(architecture: str) -> tuple[CheckpointConfig, bytes]:
    """The same layers for the hard world. Raises CheckpointError as `demo_start`."""
    return _start(architecture, HARD_KINDS, passage_length=80, num_retrieved=25, num_selected=5, max_new_tokens=10)


def _start(
    architecture: str, kinds: Sequence[Kind], *, passage_length: int, num_retrieved: int, num_selected: int,
    max_new_tokens: int,
) -> tuple[CheckpointConfig, bytes]:
    from glimmer_export.exporter.checkpoint.config import parse_config

    parts: dict[str, Any] = {
        "glimmer": {
            "num_memory_layers": 4, "num_stage_a_layers": 2, "num_stage_b_layers": 1, "num_selected": num_selected,
        },
        "lumen": {"num_memory_layers": 4, "num_stage_a_layers": 0, "num_stage_b_layers": 3},
        "memory_fid": {"num_memory_layers": 7, "num_stage_a_layers": 0, "num_stage_b_layers": 0},
        "fid": {"num_memory_layers": 0, "num_stage_a_layers": 0, "num_stage_b_layers": 7},
    }.get(architecture, {})
    fields = {
        "architecture": architecture, "vocab_size": len(vocabulary(kinds)), "d_model": 128, "d_kv": 32, "d_ff": 256,
        "num_heads": 4, "num_decoder_layers": 2, "question_length": 16, "passage_length": passage_length,
        "num_retrieved": num_retrieved, "max_new_tokens": max_new_tokens, **parts,
    }
    return parse_config(fields, subject="the demo model"), build_tokenizer(kinds).to_str(pretty=True).encode()
