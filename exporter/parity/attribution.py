"""Attribution: the reference with one part of the candidate's in its place, and what that part costs alone.

Graphs of different precision can be exchanged one by one, since what crosses their boundary is float32 in the
checkpoint's units, or memory in the store's codec; only their algebraic forms must be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.parity.bootstrap import Interval
from exporter.parity.bundle_graphs import GraphSet
from exporter.parity.grades import answers_equal, em_of
from exporter.parity.memory_source import MemorySource, codec_name
from exporter.parity.ranking import top_m_overlap
from exporter.parity.rows import Row
from exporter.parity.sides import Reply
from runtime.backends import Graph
from runtime.contract import ModelShape

__all__ = ["Mix", "PartEffect", "effect_of", "mixes"]

DECODER = ("cross_kv", "decoder_prefill", "decoder_step")


@dataclass(frozen=True)
class PartEffect:
    """What one part of the candidate's does to the reference's answers; `em_delta` from -1 to 1, with its interval."""

    em_delta: float | None
    em_delta_interval: Interval | None
    answers_equal: float | None
    top_m_overlap: float | None


@dataclass(frozen=True)
class Mix:
    """Graphs and memory of which one part is the candidate's."""

    graphs: dict[str, Graph]
    source: MemorySource


def mixes(
    shape: ModelShape,
    reference: GraphSet,
    candidate: GraphSet,
    source: MemorySource,
    *,
    store: MemorySource | None,
    encoded: MemorySource,
) -> dict[str, Mix]:
    """The parts that the architecture has, by name, each swapped alone.

    `source` is the reference's memory; `store` the candidate's where it reads another, `encoded` what the candidate's
    memory encoder gives of the same passages, through the reference's codec. Raises OptionError where one side has no
    graphs for memory in the other's codec.
    """
    traits = shape.traits
    own, others = (side.of(codec_name(source.codec)) for side in (reference, candidate))
    swapped: dict[str, tuple[str, ...]] = {}
    parts: dict[str, Mix] = {}
    if traits.has_memory and store is not None:
        parts["store_codec"] = Mix(reference.of(codec_name(store.codec)), store)
    if traits.has_memory:
        parts["memory_encoder_store"] = Mix(own, encoded)
    if traits.encodes_question and shape.separate_question_encoder:
        swapped["question_encoder"] = ("question_encoder",)
    elif traits.encodes_question:
        # Memory comes from the source, so that this graph encodes nothing but questions.
        swapped["memory_encoder_question"] = ("memory_encoder",)
    if not traits.has_memory:
        swapped["encoder"] = ("encoder",)
    if traits.selects:
        swapped["live_stage_a"] = ("live_stage_a",)
    if traits.has_memory:
        swapped["live_stage_b"] = ("live_stage_b",)
    swapped["decoder"] = tuple(name for name in DECODER if name in others)
    parts |= {
        part: Mix({**own, **{name: others[name] for name in names}}, source) for part, names in swapped.items()
    }
    return parts


def effect_of(rows: Sequence[Row], references: Sequence[Reply], mixed: Sequence[Reply]) -> PartEffect:
    """What a mix answers against what the reference answers."""
    em = em_of(rows, references, mixed)
    return PartEffect(em.delta, em.interval, answers_equal(references, mixed), top_m_overlap(references, mixed))
