"""What is chosen: of what meets the goals the cheapest that the gate passes, by questions that the search did not see.

Where the gate passes none of these, the same points are measured with nothing rounded that the limits let stand, as the
search itself may never have put the exact switches together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.tune.front import ROUNDING, front_of, nearest, ordered
from glimmer_export.exporter.tune.search import Search
from glimmer_export.exporter.tune.space import NONE, SWITCHES, Point
from glimmer_export.exporter.tune.trials import NEARER, Trial
from glimmer_export.exporter.tune.verdict import HeldOut, held_out_figures
from glimmer_export.exporter.tune.workshop import store_bytes

__all__ = ["CANDIDATES", "NEAREST", "choose"]

CANDIDATES = 8
"""Points of the front that are held against the gate, the first that does not fail being chosen: few, as each sees what
was held out."""
NEAREST = 3
"""Points that are measured, and held against it, if all of those fail: those nearest to the checkpoint."""


def choose(
    search: Search, held_out: Sequence[Question], gate: str,
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
) -> tuple[list[HeldOut], int | None]:
    """What was held against the gate, and the first point that it passes.

    One that it does not pass is taken away, so that what it stood before comes to the front. If it passes none at all,
    the first for which it could not tell is chosen, as where the questions are too few for it: none is then tried more.
    """
    trials, goals, reference = search.trials, search.goals, search.reference
    tried: list[HeldOut] = []
    known: dict[str, list[float]] = {}

    def passed(trial: Trial) -> bool:
        found = held_out_figures(search.workshop, trial, reference, search.space.default, held_out, gate, known)
        tried.append(found)
        advance(1)
        return found.gate.passed

    with progress("Judging by what was held out", CANDIDATES + NEAREST) as advance:
        pool = [trial for trial in trials.complete() if trial.by != NEARER]
        while len(tried) < CANDIDATES and (able := ordered(front_of(pool), trials, goals)):
            if passed(able[0]):
                return tried, able[0].number
            if tried[-1].too_few:
                return tried, _undecided(tried)
            pool.remove(able[0])
        codecs = _codecs(search)
        search.measure_nearer(nearer(search, [trials.all[item.number] for item in tried], codecs))
        judged = {item.number for item in tried}
        pool = [trial for trial in trials.complete() if trial.number not in judged]
        for trial in nearest(pool, trials, goals, reference, codecs)[:NEAREST]:
            if passed(trial):
                return tried, trial.number
            if tried[-1].too_few:
                break
    return tried, _undecided(tried)


def nearer(search: Search, failed: Sequence[Trial], codecs: Sequence[str]) -> list[Point]:
    """What failed, and the default, with exact graphs and the codec that keeps memory best of those that fit.

    NEAREST points, which may stand outside of what `--try` named; none where no codec's store is small enough. If
    nothing failed, as nothing met the goals, the front's points have the place of what did.
    """
    precision = [*search.workshop.inputs.ladder][-1]
    exact = search.space.default.having("precision", precision).having("weight_only", NONE).having("mass", None)
    if exact["codec"] is not None:
        if not codecs:
            return []
        exact = exact.having("codec", codecs[0])
    found = []
    for trial in failed or front_of(search.trials.complete()):
        point = exact
        for name in SWITCHES:
            if name not in (*ROUNDING, "method"):
                point = point.having(name, trial.point[name])
        found.append(search.space.sound(point))
    exact = search.space.sound(exact)
    others = [point for point in dict.fromkeys(found) if point != exact]
    return [*others[: NEAREST - 1], exact]


def _codecs(search: Search) -> list[str]:
    """Codecs of which the default's store is within the limit, that which keeps memory best first."""
    found = []
    workshop, limit = search.workshop, search.goals.store_bytes
    for codec in workshop.inputs.codecs:
        point = search.space.default.having("codec", codec)
        size, snr = store_bytes(workshop.store(point), workshop.corpus_share), workshop.snr(point)
        if limit is None or size <= limit:
            found.append((0.0 if snr is None or snr.usual_db is None else -snr.usual_db, codec))
    return [codec for _, codec in sorted(found)]


def _undecided(tried: Sequence[HeldOut]) -> int | None:
    return next((item.number for item in tried if not item.failed), None)
