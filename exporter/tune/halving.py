"""Successive halving over questions: few for every point, three times as many for those that may still be good.

A point is dropped where its paired interval says enough, never for a rank: where all of it lies beyond the loss that is
allowed, or where a point that costs no more has as much right as it could have.
"""

from __future__ import annotations

from glimmer_export.exporter.tune.goals import Goals
from glimmer_export.exporter.tune.lines import ANSWERING_BATCH
from glimmer_export.exporter.tune.trials import NEARER, Trial, Trials

__all__ = ["BUNDLE_NOISE", "LATENCY_NOISE", "costs_no_more", "rungs", "why_dropped", "why_not_asked"]

GROWTH = 3
FIRST = 48
"""Questions of the first rung, at least."""
HOPELESS = 0.1
"""Of exact match that may surely be lost where no limit was given."""
LATENCY_NOISE = 1.05
"""Times that differ by less are taken for the same."""
BUNDLE_NOISE = 1.01
"""Bundles that differ by less are: each codec's graph has nodes and names of its own beside the weights."""


def rungs(questions: int) -> list[int]:
    """How many questions a point has been asked after each rung: whole batches, three times as many, all at last.

    Whole batches, so that a question stands among the same others however far it was asked at once.
    """
    sizes = [questions]
    while sizes[0] // GROWTH >= FIRST:
        sizes.insert(0, sizes[0] // GROWTH // ANSWERING_BATCH * ANSWERING_BATCH)
    return sizes


def why_not_asked(trial: Trial, trials: Trials, goals: Goals) -> str | None:
    """Why a point is asked nothing: it cannot meet a limit; None if it may. The default is asked in any case."""
    if trial.number == 0:
        return None
    store, _ = trial.sizes
    if goals.store_bytes is not None and store > goals.store_bytes:
        return f"store of {store / 1e9:.4g} GB beyond {goals.store_gb:g}"
    latency = trials.latency_ms(trial)
    if goals.latency_ms is not None and latency > goals.latency_ms * LATENCY_NOISE:
        return f"{latency:.4g} ms beyond {goals.latency_ms:g}"
    return None


def why_dropped(trial: Trial, trials: Trials, goals: Goals) -> str | None:
    """Why a point is asked no further, by the questions so far; None if it goes on.

    One that is measured for the gate's sake is not dropped for what another has: the gate failed the others.
    """
    if trial.number == 0:
        return None
    allowed = HOPELESS if goals.em_share is None else goals.em_share
    beside = trial.less(trials.reference)
    if beside.high < -allowed:
        return (
            f"loses {-100 * beside.value:.2f} points of exact match, at least {-100 * beside.high:.2f}, by "
            f"{beside.questions} questions"
        )
    if len(trial.right) == len(trials.reference) or trial.by == NEARER:
        return None
    for other in trials.complete():
        if costs_no_more(other, trial) and (own := trial.less(other.right)).high <= 0:
            return f"point {other.number} costs no more and has at least as much right, by {own.questions} questions"
    return None


def costs_no_more(one: Trial, other: Trial) -> bool:
    """Whether one takes no longer than another, and has no more bytes in store and bundle."""
    (store, bundle), (its_store, its_bundle) = one.sizes, other.sizes
    return one.ratio <= other.ratio * LATENCY_NOISE and store <= its_store and bundle <= its_bundle * BUNDLE_NOISE
