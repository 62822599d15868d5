"""An optimization profile and a bundle's model -> sizes of the dimensions that vary, by their names in graph I/O."""

from __future__ import annotations

from typing import NamedTuple

from glimmer_export.exporter.targets import Profile, Range
from glimmer_export.runtime.contract import ModelShape

__all__ = ["TEXT_ENCODERS", "Sizes", "dim_sizes"]

TEXT_ENCODERS = ("memory_encoder", "question_encoder")


class Sizes(NamedTuple):
    """The least of a dimension, the one to tune for, and the greatest."""

    min: int
    opt: int
    max: int


def dim_sizes(shape: ModelShape, profile: Profile, graph: str) -> dict[str, Sizes]:
    """Sizes of the dimensions that vary, by the names that graph I/O has for them.

    The encoders of texts run on batches of their own, of questions or passages; every other graph on questions. What
    the decoder attends to and its caches follow from the rest.
    """
    passages = _sizes(profile.passages, shape.num_retrieved)
    question = _sizes(profile.question_tokens, shape.question_length)
    passage = _sizes(profile.passage_tokens, shape.passage_length)
    batch, tokens = _sizes(profile.batch, 1), _sum(question, passage)
    selected = passages
    if shape.num_selected is not None:
        selected = _sizes(profile.selected, shape.num_selected)
    read = tokens if shape.traits.encodes_question or not shape.traits.has_memory else passage
    encoder_tokens = Sizes(*(count * length for count, length in zip(selected, read, strict=True)))
    if graph in TEXT_ENCODERS:
        batch = _sizes(profile.texts, 1)
        tuned = question if profile.text == "question" else passage
        tokens = Sizes(min(question.min, passage.min), tuned.opt, max(question.max, passage.max))
    return {
        "batch": batch, "passages": passages, "selected": selected, "question": question, "passage": passage,
        "tokens": tokens, "encoder_tokens": encoder_tokens,
        "prefix": Sizes(1, shape.decoder_prefix_length, shape.decoder_prefix_length),
        # One length for all steps, so that each has the same shapes (design section 2).
        "cache_length": Sizes(*[shape.cache_length] * 3),
    }  # fmt: skip


def _sizes(wanted: Range, model: int) -> Sizes:
    """A range in numbers; where it names the model's own size beside numbers, the greatest bounds the others."""
    low, middle, high = (model if size == "model" else size for size in wanted)
    return Sizes(min(low, middle, high), min(middle, high), high)


def _sum(first: Sizes, second: Sizes) -> Sizes:
    return Sizes(*(one + other for one, other in zip(first, second, strict=True)))
