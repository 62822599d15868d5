"""A new checkpoint's options: the papers' proportions resolved to layers, and the config that follows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from glimmer_export.exporter.checkpoint.config import CheckpointConfig, parse_config
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape
from glimmer_export.runtime.contract import ARCHITECTURES, CheckpointError, OptionError

__all__ = [
    "FROM_SCRATCH", "FROM_T5", "RERANKERS", "ModelOptions", "Partition", "config_from_options", "parse_proportion",
    "partition", "round_half_up",
]  # fmt: skip

RERANKERS = FROM_T5, FROM_SCRATCH = ("t5", "random")
"""Where a separate reranker's weights come from (GLIMMER paper, table 1)."""

PROPORTION = re.compile(r"\d{1,9}/\d{1,9}|\d{1,9}(\.\d{0,18})?|\.\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Partition:
    """Encoder layers of each part, first to last; those of a separate reranker's stage A stand beside the others."""

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
    separate_reranker: bool = False,
) -> Partition:
    """Cut an encoder of `num_layers` by depth (LUMEN paper, section 3; GLIMMER paper, section 3.2).

    The last `live_proportion` of the layers are live; of those the first `rerank_proportion` are stage A. Both round
    half up, and to at least one layer. An architecture without memory has all layers live, one without live layers
    all in memory, whatever the proportions. `memory_layers` replaces the memory encoder's own count: the deep memory
    encoder of the LUMEN paper has more layers than the live ones leave. With `separate_reranker` stage A has as many
    layers as else, but in addition to the live ones, all of which are stage B.

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
    num_shared = 0 if separate_reranker else num_stage_a
    if "stage_b" in parts and num_live == num_shared:
        fix = "lower --rerank-proportion" if num_live > 1 else "raise --live-proportion"
        if num_live == 1 and num_layers < 3:  # memory, stage A and stage B
            fix = "give stage A layers of its own, --separate-reranker, or choose --architecture lumen"
        raise CheckpointError(
            subject, expected="at least one layer in its stage B",
            found=f"none ({num_stage_a} of {num_live} live layers are stage A, by a rerank proportion of "
            f"{rerank_proportion})",
            fix=fix,
        )
    return Partition(num_memory, num_stage_a, num_live - num_shared)


PASSAGE_LENGTHS = {"glimmer": 304, "lumen": 208, "memory_fid": 208, "fid": 304}
NUM_SELECTED = 5


@dataclass(frozen=True)
class ModelOptions:
    """Options of a new model, with the papers' defaults; None is that of its architecture or of what it is made of.

    Lengths are in tokens, EOS included. `num_selected` is 5, or all where fewer are retrieved;
    with `num_shortlisted` stage A ranks so many, which a score head behind its first layer finds; `passage_length` is
    304 in the GLIMMER paper and 208 in the LUMEN paper. `memory_layers` deepens the memory encoder beyond what the
    proportions leave to it. `separate_reranker` is one of RERANKERS, None for a stage A of the live encoder's layers.
    """

    architecture: str
    live_proportion: Fraction = Fraction(1, 3)
    rerank_proportion: Fraction = Fraction(1, 4)
    memory_layers: int | None = None
    separate_question_encoder: bool = False
    score_pooling: str = "first"
    memory_final_norm: bool = False
    question_length: int | None = None
    passage_length: int | None = None
    question_template: str | None = None
    passage_template: str | None = None
    num_retrieved: int = 25
    num_shortlisted: int | None = None
    num_selected: int | None = None
    max_new_tokens: int | None = None
    separate_reranker: str | None = None


INHERITED = {
    "question_length": 48, "question_template": "{question}", "passage_template": "{title} {text}",
    "max_new_tokens": 32,
}  # fmt: skip
"""What a model that is made of a trained one has from that, unless an option says otherwise; and else."""


def config_from_options(
    options: ModelOptions, shape: T5Shape, *, subject: str, inherited: Mapping[str, Any] | None = None
) -> CheckpointConfig:
    """The config of a T5 of `shape` cut as `options` say; `inherited` are fields of the model that it is made of.

    Raises OptionError for an unknown architecture or reranker, and CheckpointError, naming the field, for an empty
    stage or options that do not go together.
    """
    if options.separate_reranker not in (None, *RERANKERS):
        raise OptionError(
            "option --separate-reranker", expected=f"one of {', '.join(RERANKERS)}",
            found=repr(options.separate_reranker), fix="choose one of these",
        )
    cut = partition(
        options.architecture,
        shape.num_layers,
        live_proportion=options.live_proportion,
        rerank_proportion=options.rerank_proportion,
        memory_layers=options.memory_layers,
        separate_reranker=options.separate_reranker is not None,
    )
    num_selected = options.num_selected
    if num_selected is None and ARCHITECTURES[options.architecture].selects:
        num_selected = min(NUM_SELECTED, options.num_retrieved)
    fields = {**INHERITED, "passage_length": PASSAGE_LENGTHS[options.architecture], **(inherited or {})}
    fields |= {name: value for name in (*INHERITED, "passage_length") if (value := getattr(options, name)) is not None}
    fields |= {
        "architecture": options.architecture,
        "separate_question_encoder": options.separate_question_encoder,
        "separate_reranker": options.separate_reranker is not None,
        "score_pooling": options.score_pooling,
        "memory_final_norm": options.memory_final_norm,
        "num_retrieved": options.num_retrieved,
        "num_shortlisted": options.num_shortlisted,
        "num_selected": num_selected,
    }
    return parse_config(shape.checkpoint_fields() | asdict(cut) | fields, subject=subject)
