"""The gate: how much a bundle may lose, from `configs/parity/<name>.yaml` or a file of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.checkpoint.config import validation_message
from exporter.configs_path import configs_directory
from exporter.yaml_file import read_yaml
from runtime.contract import GateCheck, GateResult, OptionError

if TYPE_CHECKING:
    from exporter.parity.report import ParityReport

__all__ = ["Gate", "gate_names", "judge", "read_gate"]

ROUNDING = 1e-9
"""Half a point lost exactly is no more than half a point, though a difference of floats may say so."""


class Gate(BaseModel):
    """Limits; one that is left out is not checked.

    Points are hundredths: an EM of 0.900 that falls to 0.895 loses half a point. `min_snr_db` is by graph.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str = Field(min_length=1)
    max_em_loss_points: float | None = Field(default=None, ge=0, le=100)
    min_answers_equal: float | None = Field(default=None, ge=0, le=1)
    min_answers_equal_of_correct: float | None = Field(default=None, ge=0, le=1)
    min_top_m_overlap: float | None = Field(default=None, ge=0, le=1)
    max_gold_in_top_m_loss_points: float | None = Field(default=None, ge=0, le=100)
    min_snr_db: dict[str, float] = Field(default_factory=dict)


def gate_names() -> tuple[str, ...]:
    """The gates that come with the exporter."""
    return tuple(sorted(path.stem for path in (configs_directory() / "parity").glob("*.yaml")))


def read_gate(name: str) -> tuple[str, Gate]:
    """A gate by name, such as "default", or by the path of a YAML file, and what to call it.

    Raises OptionError for an unknown name and for a file that is damaged, has an unknown key, or limits nothing.
    """
    if name in gate_names():
        path = configs_directory() / "parity" / f"{name}.yaml"
    elif Path(name).suffix in (".yaml", ".yml"):
        path = Path(name)
    else:
        raise OptionError(
            f"gate {name!r}", expected=f"one of {', '.join(gate_names())}, or a YAML file", found="none of that name",
            fix="choose one of these",
        )
    try:
        gate = Gate.model_validate(
            read_yaml(path, error=OptionError, subject=str(path), expected="a YAML mapping", fix="name another file")
        )
    except ValidationError as error:
        raise OptionError(
            str(path), expected="a gate's limits", found=validation_message(error), fix="correct the named fields"
        ) from None
    if not gate.model_dump(exclude_defaults=True, exclude={"description"}):
        raise OptionError(str(path), expected="at least one limit", found="none", fix="name what may be lost")
    return path.stem, gate


def judge(name: str, gate: Gate, report: ParityReport) -> GateResult:
    """Hold a report against the limits.

    What was not measured does not pass: no answers or gold passages in the question file, a graph that was not run.
    Limits of the selection are left out for an architecture that selects nothing; a gate of which nothing is left does
    not pass.
    """
    checks = tuple(_checks(gate, report))
    return GateResult(name, bool(checks) and all(check.passed for check in checks), checks)


def _checks(gate: Gate, report: ParityReport) -> Iterator[GateCheck]:
    gold = report.gold_in_top_m
    gold_loss = None if gold.reference is None or gold.candidate is None else 100 * (gold.reference - gold.candidate)
    em_loss = None if report.em.delta is None else -100 * report.em.delta
    yield from _check("max_em_loss_points", gate.max_em_loss_points, em_loss)
    yield from _check("min_answers_equal", gate.min_answers_equal, report.answers_equal)
    of_correct = report.answers_equal_of_correct
    yield from _check("min_answers_equal_of_correct", gate.min_answers_equal_of_correct, of_correct)
    if report.selects:
        yield from _check("min_top_m_overlap", gate.min_top_m_overlap, report.top_m_overlap)
        yield from _check("max_gold_in_top_m_loss_points", gate.max_gold_in_top_m_loss_points, gold_loss)
    for graph, limit in gate.min_snr_db.items():
        error = report.graphs.get(graph)
        yield from _check(f"min_snr_db.{graph}", limit, None if error is None else error.snr_db)


def _check(name: str, limit: float | None, found: float | None) -> Iterator[GateCheck]:
    if limit is not None:
        excess = -1.0 if found is None else found - limit if name.startswith("max_") else limit - found
        yield GateCheck(name, limit, found, found is not None and excess <= ROUNDING)
