"""What a user decides about a new checkpoint, and the config that follows for a T5 of some shape."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction

from glimmer_export.exporter.checkpoint.config import CheckpointConfig, parse_config
from glimmer_export.exporter.checkpoint.partition import partition
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape
from glimmer_export.runtime.contract import ARCHITECTURES

__all__ = ["ModelOptions", "config_from_options"]

PASSAGE_LENGTHS = {"glimmer": 304, "lumen": 208, "memory_fid": 208, "fid": 304}
NUM_SELECTED = 5


@dataclass(frozen=True)
class ModelOptions:
    """Options of a new model, with the papers' defaults; None is the architecture's own default.

    Lengths are in tokens, EOS included. `num_selected` is 5, or all where fewer are retrieved; `passage_length` is
    304 in the GLIMMER paper and 208 in the LUMEN paper. `memory_layers` deepens the memory encoder beyond what the
    proportions leave to it.
    """

    architecture: str
    live_proportion: Fraction = Fraction(1, 3)
    rerank_proportion: Fraction = Fraction(1, 4)
    memory_layers: int | None = None
    separate_question_encoder: bool = False
    score_pooling: str = "first"
    memory_final_norm: bool = False
    question_length: int = 48
    passage_length: int | None = None
    question_template: str = "{question}"
    passage_template: str = "{title} {text}"
    num_retrieved: int = 25
    num_selected: int | None = None
    max_new_tokens: int = 32


def config_from_options(options: ModelOptions, shape: T5Shape, *, subject: str) -> CheckpointConfig:
    """The config of a T5 of `shape` cut as `options` say.

    Raises OptionError for an unknown architecture, and CheckpointError, naming the field, for an empty stage or options
    that do not go together.
    """
    cut = partition(
        options.architecture,
        shape.num_layers,
        live_proportion=options.live_proportion,
        rerank_proportion=options.rerank_proportion,
        memory_layers=options.memory_layers,
    )
    num_selected = options.num_selected
    if num_selected is None and ARCHITECTURES[options.architecture].selects:
        num_selected = min(NUM_SELECTED, options.num_retrieved)
    passage_length = options.passage_length
    if passage_length is None:
        passage_length = PASSAGE_LENGTHS[options.architecture]
    fields = {
        "architecture": options.architecture,
        "separate_question_encoder": options.separate_question_encoder,
        "score_pooling": options.score_pooling,
        "memory_final_norm": options.memory_final_norm,
        "question_length": options.question_length,
        "passage_length": passage_length,
        "question_template": options.question_template,
        "passage_template": options.passage_template,
        "num_retrieved": options.num_retrieved,
        "num_selected": num_selected,
        "max_new_tokens": options.max_new_tokens,
    }
    return parse_config(shape.checkpoint_fields() | asdict(cut) | fields, subject=subject)
