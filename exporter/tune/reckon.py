"""What cannot be reached, before anything is built: by bytes of a passage, and by the target's peak rates.

The floors are those of `cost`, at the cheapest that any point of the space may be: no point can be below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from glimmer_export.exporter.config.targets import PRECISIONS, Target
from glimmer_export.exporter.cost.model import CostModel, Workload, model_from_shape
from glimmer_export.exporter.cost.ours import store_codecs
from glimmer_export.exporter.cost.roofline import stage_floors
from glimmer_export.exporter.tune.goals import GB, Goals
from glimmer_export.exporter.tune.measure import Lengths
from glimmer_export.exporter.tune.space import Space
from glimmer_export.runtime.contract import Forms, ModelShape

__all__ = ["Unreachable", "unreachable"]


@dataclass(frozen=True)
class Unreachable:
    """A goal that no point can meet: its limit, the least that there is, in the limit's unit, and what makes that."""

    goal: str
    limit: float
    least: float
    why: str

    def to_json(self) -> dict[str, float | str]:
        """Plain data."""
        return {**asdict(self), "excess": self.least - self.limit, "sentence": self.sentence()}

    def sentence(self) -> str:
        """For people."""
        unit = {"latency_ms": "ms", "store_gb": "GB"}[self.goal]
        over = self.least - self.limit
        return (
            f"{self.goal} {self.limit:g} {unit} cannot be reached: {self.why} takes {self.least:.4g} {unit} at the "
            f"least, {over:.4g} {unit} too much ({self.least / self.limit:.3g} times the limit)"
        )


def unreachable(
    goals: Goals, shape: ModelShape, space: Space, target: Target, lengths: Lengths, passages: int
) -> list[Unreachable]:
    """The goals that no point of the space meets, that which is furthest from it first."""
    found = []
    if goals.store_bytes is not None:
        codecs = store_codecs(_model(shape, space, lengths, passages, None)[0], lengths.passage)
        tried = {str(codec) if codec is not None else "none" for codec in space.values["codec"]}
        name, size = min(
            ((name, size) for name, size in codecs.items() if name in tried), key=lambda item: item[1]
        )
        least = size * passages
        if least > goals.store_bytes:
            why = f"memory of {passages:,} passages in {name}, {size:,} bytes each"
            found.append(Unreachable("store_gb", goals.store_gb or 0.0, least / GB, why))
    if goals.latency_ms is not None:
        least_ms, why = min(_floors(shape, space, target, lengths, passages))
        if least_ms > goals.latency_ms:
            found.append(Unreachable("latency_ms", goals.latency_ms, least_ms, why))
    return sorted(found, key=lambda item: -item.least / item.limit)


def _floors(
    shape: ModelShape, space: Space, target: Target, lengths: Lengths, passages: int
) -> Iterable[tuple[float, str]]:
    """Of the smallest k and m in every form and precision, with what it is of."""
    for form in space.values["cross_attention"]:
        model, workload = _model(shape, space, lengths, passages, str(form))
        for precision in PRECISIONS:
            floors = stage_floors(model, workload, target, precision)
            total = sum(floor.ms for floor in floors.values())
            slowest = max(floors, key=lambda name: floors[name].ms)
            counts = f"k {workload.num_retrieved}" + (f", m {workload.num_selected}" if shape.traits.selects else "")
            yield total, f"a question of {counts} in {precision}, most of it {slowest} ({floors[slowest].binds}),"


def _model(
    shape: ModelShape, space: Space, lengths: Lengths, passages: int, form: str | None
) -> tuple[CostModel, Workload]:
    """The cheapest counts of the space, and the fewest runs of the decoder."""
    k = min(value for value in space.values["k"] if isinstance(value, int))
    ms = [value for value in space.values["m"] if isinstance(value, int)]
    m = min([*ms, k])
    shape = replace(shape, num_retrieved=k, num_selected=m if ms else shape.num_selected)
    drafts = max(value for value in space.values["draft_tokens"] if isinstance(value, int))
    runs = max(1, math.ceil(lengths.answer / (1 + drafts)))  # of the decoder, if every draft were right
    workload = Workload(k, m if ms else k, lengths.question, lengths.passage, runs, passages)
    codecs = tuple(str(codec) for codec in space.values["codec"] if codec is not None)[:1]
    stage_a = space.values["stage_a"][0]
    forms = Forms(codecs, None if stage_a is None else str(stage_a), form or "absorbed")
    return model_from_shape("checkpoint", shape, forms, workload), workload
