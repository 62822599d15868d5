"""The relative-position table of the decoder's cross-attention: read at training by transformers before 4.0 alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glimmer_export.exporter.checkpoint.weight_files import WeightFiles

__all__ = ["TABLE", "changes_attention", "say_left_out"]

TABLE = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""T5 has none; transformers added one of random values, which a model that was trained with it has learned."""


def changes_attention(files: WeightFiles) -> bool:
    """Whether there is a table, (buckets, heads), that tells positions apart.

    The softmax ignores what is added to all keys of a head, so a table that is constant a head changes nothing.
    """
    if TABLE not in files.shapes():
        return False
    table = files.tensor(TABLE)
    return not bool(((table == table[:1]) & table.isfinite()).all())


def say_left_out(files: WeightFiles, on_note: Callable[[str], None]) -> None:
    """Note a table that is there and not read, and why."""
    if TABLE not in files.shapes():
        return
    if changes_attention(files):
        why = (
            "transformers has not read it since 4.0; of weights that an earlier one trained, `convert` carries it with "
            '{"cross_attention_bias": true} in --config'
        )
    else:
        why = "it is constant for each head, which changes no attention"
    on_note(f"left out {TABLE}: {why}")
