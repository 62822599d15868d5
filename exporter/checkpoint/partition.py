"""The papers' proportions resolved to layers: which part of T5's encoder is memory, stage A and stage B."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from glimmer_export.runtime.contract import ARCHITECTURES, CheckpointError, OptionError

__all__ = ["Partition", "parse_proportion", "partition", "round_half_up"]

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

    Raises OptionError for an unknown architecture, and CheckpointError where a part that it needs is left empty.
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
