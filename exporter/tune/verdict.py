"""What the chosen point is worth, by questions that the search did not see: the gate, and each goal's standing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
from glimmer_export.exporter.parity.gate import SELECTION
from glimmer_export.exporter.parity.options import parity_backend
from glimmer_export.exporter.tune.goals import (
    Goals,
    Standing,
    standing_of_em,
    standing_of_figure,
)
from glimmer_export.exporter.tune.intervals import Estimate, difference, share
from glimmer_export.exporter.tune.lines import ANSWERING_BATCH, BUILT_CODEC, ROUNDING
from glimmer_export.exporter.tune.measure import answers_right, opened
from glimmer_export.exporter.tune.space import Point
from glimmer_export.exporter.tune.trials import Trial, Trials
from glimmer_export.exporter.tune.workshop import Workshop
from glimmer_export.runtime.contract import CPU_BACKEND, FAILED, NOT_MEASURED, PASSED, GateCheck, GateResult

__all__ = ["HeldOut", "beyond", "held_of", "held_out_figures", "relaxed", "standings"]

DIGITS = 10_000


@dataclass(frozen=True)
class HeldOut:
    """A point's exact match on the held-out questions, less the reference's and the default's, and the gate's result.

    The gate compares it, at its own k and m, with the float bundle and a store in fp16; a float bundle with torch.
    """

    number: int
    em: Estimate
    less_reference: Estimate
    less_default: Estimate
    gate: GateResult

    @property
    def failed(self) -> bool:
        """Whether the gate says no; not where the questions are too few for it to say anything."""
        return self.gate.verdict == FAILED

    @property
    def too_few(self) -> bool:
        """Whether the gate asks for more questions than any point can have answered."""
        return any(check.name == "min_answered" and not check.passed for check in self.gate.checks)


def beyond(check: GateCheck) -> str:
    """What a check that did not pass says, by how much; or that nothing was there to tell by."""
    if check.found is None or check.questions == 0:
        return f"{check.name} {check.limit:g}: nothing was there to tell by"
    excess = check.found - check.limit if check.name.startswith("max_") else check.limit - check.found
    if excess <= 0:
        return f"{check.name} {check.limit:g}: {check.found:.4g}, of too few questions ({check.questions})"
    way = "too much" if check.name.startswith("max_") else "too little"
    return f"{check.name} {check.limit:g}: {check.found:.4g}, {excess:.4g} {way}"


def relaxed(tried: Sequence[HeldOut]) -> str | None:
    """Of points that the gate failed that which fails in the fewest limits, and the limits with which it would pass.

    None if there is none of which all that failed was measured.
    """
    failed = {item.number: [check for check in item.gate.checks if not check.passed] for item in tried}
    told = {
        number: checks for number, checks in failed.items()
        if all(check.found is not None and check.questions != 0 for check in checks)
    }
    if not told:
        return None
    number = min(told, key=lambda number: (len(told[number]), number))
    limits = ", ".join(f"{check.name}: {_just(check):g}" for check in told[number])
    return (
        f"point {number} is nearest to it, and would pass a gate of one's own (--gate FILE) that has {limits} and all "
        "else the same"
    )


def _just(check: GateCheck) -> float:
    """The limit of four decimals that a figure just meets."""
    assert check.found is not None
    rounds = math.ceil if check.name.startswith("max_") else math.floor
    return rounds(check.found * DIGITS) / DIGITS


def held_of(tried: Sequence[HeldOut], number: int) -> HeldOut:
    """A point's of those that were held against the gate."""
    return next(item for item in tried if item.number == number)


def held_out_figures(
    workshop: Workshop, trial: Trial, reference: Point, default: Point, questions: Sequence[Question], gate: str,
    known: dict[str, list[float]],
) -> HeldOut:
    """Ask the held-out questions, and hold the bundle against the gate, whose result is recorded in it.

    `known` keeps answers that were asked for already, by point. Raises what answering and `run_parity` raise.
    """
    inputs = workshop.inputs
    points = {"own": (trial.point, inputs.on_gpu), "default": (default, inputs.on_gpu), "reference": (reference, False)}
    right = {}
    for name, (point, on_gpu) in points.items():
        key = f"{point.key} {on_gpu}"
        if key not in known:
            with opened(workshop.built(point), point, on_gpu=on_gpu) as session:
                known[key] = answers_right(session, point, questions, given=inputs.given)
        right[name] = known[key]
    return HeldOut(
        trial.number, share(right["own"]), difference(right["own"], right["reference"]),
        difference(right["own"], right["default"]), _gate(workshop, trial.point, default, questions, gate),
    )


def _gate(workshop: Workshop, point: Point, default: Point, questions: Sequence[Question], gate: str) -> GateResult:
    """The gate's word on a point. Where it reads all that it retrieves, its selection is judged at the default's m.

    Or at one passage less than are retrieved, where the default's m is no less: the bundle must pass there too.
    """
    result = _judged(workshop, point, questions, gate)
    k, m = point["k"], point["m"]
    if result.verdict != NOT_MEASURED or not (isinstance(k, int) and isinstance(m, int) and 1 < k <= m):
        return result
    selects = point.having("m", min(default.number("m"), k - 1))
    return _with_selection(result, _judged(workshop, selects, questions, gate))


def _with_selection(all_read: GateResult, some_read: GateResult) -> GateResult:
    """What a gate says where all is read, with the limits of the selection as they are where some is."""
    known = {check.name: check for check in some_read.checks}
    checks = tuple(known[check.name] if check.name in SELECTION else check for check in all_read.checks)
    passed = some_read.passed and all(check.passed for check in checks)
    verdict = PASSED if passed else FAILED if some_read.verdict == FAILED else NOT_MEASURED
    return GateResult(all_read.name, passed, checks, verdict)


def _judged(workshop: Workshop, point: Point, questions: Sequence[Question], gate: str) -> GateResult:
    """Without drafts, which change no answer: a record is of a bundle that decodes token by token."""
    inputs, built = workshop.inputs, workshop.built(point)
    codec = point["codec"]
    exact = None if codec is None else workshop.store(point.having("codec", BUILT_CODEC))
    k, m, mass = (point[name] for name in ("k", "m", "mass"))
    assert isinstance(k, int)
    assert not isinstance(m, str)
    assert not isinstance(mass, str)
    options = ParityOptions(
        given_passages=inputs.given, top_k=k, top_m=None if m is None else int(m), mass=mass,
        batch_size=ANSWERING_BATCH, reference_store=exact,
        threads=point.number("threads"),
    )
    name = ROUNDING if inputs.on_gpu else CPU_BACKEND
    with parity_backend(name, built.bundle, options.threads) as backend:
        itself = built.bundle == built.float_bundle  # which witnesses nothing: torch is what it is held against
        request = ParityRequest(
            built.bundle, inputs.checkpoint if itself else None, None if itself else built.float_bundle, built.store,
            options, gate, backend=backend,
        )
        result = run_parity(request, questions).gate
    assert result is not None
    return result


def standings(
    goals: Goals, trial: Trial, trials: Trials, delta: Estimate, *, reckoned: bool
) -> list[Standing]:
    """How a point stands to each goal that was asked; `delta` is its exact match less the reference's."""
    found = []
    if goals.latency_ms is not None:
        found.append(
            standing_of_figure("latency_ms", goals.latency_ms, trials.latency_ms(trial), reckoned=reckoned)
        )
    if goals.store_gb is not None:
        found.append(standing_of_figure("store_gb", goals.store_gb, trial.sizes[0] / 1e9))
    if goals.em_loss is not None:
        found.append(standing_of_em(goals.em_loss, delta))
    return found
