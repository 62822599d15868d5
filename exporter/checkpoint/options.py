"""A new checkpoint's options: the papers' proportions resolved to layers, and the config that follows."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from fractions import Fraction

from glimmer_export.exporter.checkpoint.config import CheckpointConfig, parse_config
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape
from glimmer_export.runtime.contract import ARCHITECTURES, CheckpointError, OptionError

__all__ = ["ModelOptions", "Partition", "config_from_options", "parse_proportion", "partition", "round_half_up"]

PROPORTION = re.compile(r"\d{1,9}/\d{1,9}|\d{1,9}(\.\d{0,18})?|\.\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Partition:
    """Encoder layers of each part, first to last."""

    num_memory_layers: int
    num_stage_a_layers: int
    num_stage_b_layers: int


def parse_proportion(text: str, *, option: str) -> Fraction:
    """A proportion as it is written on a command line: "1/3", "0.25" or "1".

    Raises OptionError, naming `option`, for anything that is not a number above 0 and at most 1.
    """
    try:
        proportion = Fraction(text.strip()) if PROPORTION.fullmatch(text.strip()) else None
    except ZeroDivisionError:
        proportion = None
    if proportion is None or not 0 < proportion <= 1:
        raise OptionError(
            f"option {option}", expected="a proportion above 0 and at most 1", found=repr(text),
            fix='write it as "1/3" or "0.25"',
        )
    return proportion


def round_half_up(value: Fraction) -> int:
    """The nearest whole number; a half goes up."""
    return math.floor(value + Fraction(1, 2))


def partition(
    architecture: str,
    num_layers: int,
    *,
    live_proportion: Fraction,
    rerank_proportion: Fraction,
    memory_layers: int | None = None,
) -> Partition:
    """Cut an encoder of `num_layers` by depth (LUMEN paper, section 3; GLIMMER paper, section 3.2).

    The last `live_proportion` of the layers are live; of those the first `rerank_proportion` are stage A. Both round
    half up, and to at least one layer. An architecture without memory has all layers live, one without live layers
    all in memory, whatever the proportions. `memory_layers` replaces the memory encoder's own count: the deep memory
    encoder of the LUMEN paper has more layers than the live ones leave.

    Raises OptionError for an unknown architecture, and CheckpointError if a part that it needs is left empty.
    """
    if architecture not in ARCHITECTURES:
        raise OptionError(
            "option --architecture", expected=f"one of {', '.join(ARCHITECTURES)}", found=repr(architecture),
            fix="choose one of these",
        )
    parts = ARCHITECTURES[architecture].stacks
    if "memory" not in parts:
        num_live = num_layers
    elif "stage_b" not in parts:
        num_live = 0
    else:
        num_live = max(1, round_half_up(live_proportion * num_layers))
    num_stage_a = max(1, round_half_up(rerank_proportion * num_live)) if "stage_a" in parts else 0
    num_memory = num_layers - num_live if memory_layers is None else memory_layers
    subject = f"{architecture} made of {num_layers} encoder layers"
    if "memory" in parts and num_memory < 1:
        raise CheckpointError(
            subject, expected="at least one layer in its memory encoder",
            found=f"none ({num_live} are live, by a live proportion of {live_proportion})",
            fix="lower --live-proportion or raise --memory-layers",
        )
    if "stage_b" in parts and num_live == num_stage_a:
        raise CheckpointError(
            subject, expected="at least one layer in its stage B",
            found=f"none ({num_stage_a} of {num_live} live layers are stage A, by a rerank proportion of "
            f"{rerank_proportion})",
            fix="lower --rerank-proportion or raise --live-proportion",
        )
    return Partition(num_memory, num_stage_a, num_live - num_stage_a)


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
