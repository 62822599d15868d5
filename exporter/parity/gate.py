"""The gate: what a bundle may lose, and of how many questions; `configs/parity/<name>.yaml` or a file of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from glimmer_export.exporter.config.read import config_file, config_label, read_config
from glimmer_export.runtime.contract import FAILED, NOT_MEASURED, PASSED, GateCheck, GateResult, OptionError

if TYPE_CHECKING:
    from glimmer_export.exporter.parity.report import ParityReport

__all__ = ["SELECTION", "Gate", "judge", "read_gate"]

ROUNDING = 1e-9
"""Half a point lost exactly is no more than half a point, though a difference of floats may say so."""
SHARE_OF_THE_MINIMUM = 0.1
"""A figure in which some questions have no part (those without answers, say) rests on this much of `min_answered`."""
COVERAGE = {"min_answered", "max_refused_share"}
SELECTION = ("min_top_m_overlap", "max_gold_in_top_m_loss_points")
"""Limits of which passages are read: nothing measures them where all are."""


class Gate(BaseModel):
    """Limits; one that is left out is not checked, but for the coverage's, which have defaults.

    `min_answered` different questions must have been answered, with a word by either side, and at most
    `max_refused_share` of those asked refused: otherwise nothing was measured. Points are hundredths: an EM of 0.900
    that falls to 0.895 loses half a point. `min_snr_db` is by graph.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    description: str = Field(min_length=1)
    min_answered: int = Field(default=1000, ge=1)
    max_refused_share: float = Field(default=0.01, ge=0, le=1)
    max_em_loss_points: float | None = Field(default=None, ge=0, le=100)
    min_answers_equal: float | None = Field(default=None, ge=0, le=1)
    min_answers_equal_of_correct: float | None = Field(default=None, ge=0, le=1)
    min_top_m_overlap: float | None = Field(default=None, ge=0, le=1)
    max_gold_in_top_m_loss_points: float | None = Field(default=None, ge=0, le=100)
    min_snr_db: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class _Check:
    """A check, and whether enough was there to tell."""

    check: GateCheck
    measured: bool


def read_gate(name: str) -> tuple[str, Gate]:
    """A gate by name, such as "default", or by the path of a YAML file, and what to call it.

    Raises OptionError as `read_config`, and for one that limits nothing.
    """
    gate = read_config("gate", name, Gate)
    if not gate.model_dump(exclude_defaults=True, exclude={"description", *COVERAGE}):
        raise OptionError(
            str(config_file("gate", name)), expected="at least one limit", found="none", fix="name what may be lost"
        )
    return config_label("gate", name), gate


def judge(name: str, gate: Gate, report: ParityReport) -> GateResult:
    """Hold a report against the limits.

    "Not measured" where the coverage falls short, where what was compared witnesses nothing (its own graphs, where
    both rank all alike; a reference that is rounded itself; FP16 that was computed in FP32), and if a limit's figure
    is not there or rests on too few questions: no answers or gold passages in the question file, a graph that was not
    run. Limits of the selection are left out for an architecture that selects nothing; a gate of which nothing is left
    does not pass.
    """
    coverage = tuple(_coverage_checks(gate, report))
    limits = tuple(_limit_checks(gate, report))
    checks = tuple(item.check for item in (*coverage, *limits))
    if not all(item.check.passed for item in coverage) or not limits:
        verdict = NOT_MEASURED
    elif any(item.measured and not item.check.passed for item in limits):
        verdict = FAILED
    else:
        verdict = PASSED if all(item.check.passed for item in limits) else NOT_MEASURED
    return GateResult(name, verdict == PASSED, checks, verdict)


def _coverage_checks(gate: Gate, report: ParityReport) -> Iterator[_Check]:
    coverage, compared = report.coverage, report.compared
    refused = coverage.refused / coverage.asked if coverage.asked else None
    yield from _check("min_answered", gate.min_answered, coverage.distinct, coverage.answered)
    yield from _check("max_refused_share", gate.max_refused_share, refused, coverage.asked)
    if not report.exact_ranking:
        yield from _check("min_other_graphs", 1, compared.graphs - compared.same)
    yield from _check("max_rounded_reference_graphs", 0, compared.rounded_reference)
    yield from _check("max_fp16_graphs_in_fp32", 0, compared.fp16_in_fp32)


def _limit_checks(gate: Gate, report: ParityReport) -> Iterator[_Check]:
    least = math.ceil(gate.min_answered * SHARE_OF_THE_MINIMUM)
    counts, gold = report.coverage, report.gold_in_top_m
    gold_loss = None if gold.reference is None or gold.candidate is None else 100 * (gold.reference - gold.candidate)
    em_loss = None if report.em.delta is None else -100 * report.em.delta
    yield from _check("max_em_loss_points", gate.max_em_loss_points, em_loss, counts.graded, least)
    yield from _check("min_answers_equal", gate.min_answers_equal, report.answers_equal, counts.answered, least)
    of_correct = report.answers_equal_of_correct
    limit = gate.min_answers_equal_of_correct
    yield from _check("min_answers_equal_of_correct", limit, of_correct, counts.right, least)
    if report.selects:
        figures = (report.top_m_overlap, counts.ranked), (gold_loss, counts.with_gold)
        for name, (found, questions) in zip(SELECTION, figures, strict=True):
            yield from _check(name, getattr(gate, name), found, questions, least)
    for graph, limit in gate.min_snr_db.items():
        error = report.graphs.get(graph)
        yield from _check(f"min_snr_db.{graph}", limit, None if error is None else error.snr_db)


def _check(
    name: str, limit: float | None, found: float | None, questions: int | None = None, least: int = 0
) -> Iterator[_Check]:
    """One check, if there is a limit; `questions` are those that the figure rests on, at least `least` of them."""
    if limit is not None:
        excess = -1.0 if found is None else found - limit if name.startswith("max_") else limit - found
        measured = found is not None and (questions is None or questions >= least)
        yield _Check(GateCheck(name, limit, found, measured and excess <= ROUNDING, questions), measured)
