"""What need not be tried: precisions by what `sensitivity` finds, codecs by what they keep of the memory.

Each graph could stay in float or not, which is 2 to their number. Losses add up over groups of products (docs/guide/
sensitivity.md), so only sets are tried that keep what loses most: the dearest groups for a small budget, the graph that
loses most, the two, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.sensitivity import SensitivityOptions
from glimmer_export.exporter.bundle.sensitivity import SensitivityReport, bundle_sensitivity
from glimmer_export.exporter.memory.codec_fit import fit_warnings
from glimmer_export.exporter.parity.options import no_progress
from glimmer_export.exporter.tune.lines import Ladder
from glimmer_export.exporter.tune.space import FP32, Space
from glimmer_export.runtime.contract import CodecSnr

__all__ = ["MOST_GRAPHS", "ladder_of", "measured_losses", "pruned_codecs", "pruned_methods"]

MOST_GRAPHS = 2
"""Graphs that stay in float in one precision, beside all of them."""
BUDGET = 0.05
"""Of work or weights, that groups may take which stay in float."""


def measured_losses(
    calibrated: Path, store: Path, questions: tuple[Question, ...], samples: int, *, target: str, policy: str,
    given: bool,
) -> SensitivityReport:
    """What each group loses alone; raises as `bundle_sensitivity`."""
    options = SensitivityOptions(samples=samples, given=given, budget=BUDGET)
    return bundle_sensitivity(
        calibrated, store, questions, options, target=target, policy=policy,
        progress=lambda total: no_progress("Measuring", total),
    )


def ladder_of(report: SensitivityReport | None, *, on_gpu: bool) -> Ladder:
    """Precisions by name, the default first, with the options of `quantize` that make each; float has none.

    `report` None: nothing was measured, and nothing between the whole and float is tried.
    """
    whole = "int8-fp16" if on_gpu else "int8"
    ladder: Ladder = {whole: ("--precision", whole)}
    if report is not None:
        kept = [
            item.pattern for item in report.sensitivity.keep
            if not any(row.group.pattern == item.pattern and row.kept_by_policy for row in report.sensitivity.groups)
        ]
        if kept:
            options = [word for pattern in kept for word in ("--keep", pattern)]
            ladder[f"{whole}, dearest groups kept"] = ("--precision", whole, *options)
        graphs = graphs_by_loss(report)
        for count in range(1, min(MOST_GRAPHS, len(graphs) - 1) + 1):
            name = f"{whole} but {' and '.join(graphs[:count])}"
            ladder[name] = ("--precision", whole, "--graphs", ",".join(sorted(graphs[count:])))
    ladder["fp16" if on_gpu else FP32] = ("--precision", "fp16") if on_gpu else ()
    return ladder


def graphs_by_loss(report: SensitivityReport) -> list[str]:
    """Graphs that have products in INT8, that which loses most first."""
    losses: dict[str, float] = {}
    for row in report.sensitivity.groups:
        if not row.kept_by_policy:
            losses[row.group.graph] = losses.get(row.group.graph, 0.0) + row.losses.loss
    return sorted(losses, key=lambda name: (-losses[name], name))


def pruned_codecs(space: Space, kept: Mapping[str, tuple[CodecSnr, int]]) -> Space:
    """Leave out codecs that another of no more bytes keeps memory better than, and those fitted on a sample unlike it.

    `kept` has what each codec keeps, and its store's bytes. The default's stays: what it loses is to be known.
    """
    for name, (snr, size) in kept.items():
        if name == space.default["codec"] or name not in space.values["codec"]:
            continue
        if warnings := fit_warnings(snr):
            space = space.without("codec", name, f"codec {name} is not tried: {warnings[0]}")
            continue
        better = [
            other for other, (its, its_size) in kept.items()
            if other != name and its_size <= size and _db(its) > _db(snr)
        ]
        if better:
            own, its = f"{_db(snr):.1f} dB", f"{_db(kept[better[0]][0]):.1f} dB of no more bytes"
            space = space.without(
                "codec", name, f"codec {name} is not tried: it keeps memory {own} above its error, {better[0]} {its}"
            )
    return space


def pruned_methods(space: Space, graphs: Mapping[str, Sequence[str]]) -> Space:
    """Leave out calibrators that give the default's graphs, as all do where each token has a scale of its own.

    `graphs` has the digests of each one's.
    """
    own = graphs[str(space.default["method"])]
    for method, found in graphs.items():
        if method != space.default["method"] and [*found] == [*own]:
            space = space.without("method", method, f"method {method} is not tried: its graphs are the default's")
    return space


def _db(snr: CodecSnr) -> float:
    found = snr.usual_db
    return float("-inf") if found is None else found
