"""The search: proposes a round, builds and times its points, asks them by rungs, drops, and tells the proposer.

Every step is an event of the journal before it counts, so that a search that was stopped goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bench.load import LoadWatch
from glimmer_export.exporter.config.targets import Target
from glimmer_export.exporter.tune.goals import Goals
from glimmer_export.exporter.tune.halving import rungs, why_dropped, why_not_asked
from glimmer_export.exporter.tune.journal import Journal
from glimmer_export.exporter.tune.lines import BUILT_CODEC
from glimmer_export.exporter.tune.measure import (
    Lengths,
    Timed,
    answers_right,
    floor_ms,
    opened,
    timed_beside,
    timed_questions,
)
from glimmer_export.exporter.tune.propose import Proposer
from glimmer_export.exporter.tune.space import FP32, NONE, Point, Space
from glimmer_export.exporter.tune.trials import NEARER, Trial, Trials, written
from glimmer_export.exporter.tune.workshop import Built, Workshop
from glimmer_export.runtime.contract import GlimmerError, OutputError

__all__ = ["Bounds", "Search", "reference_point"]

TRIALS, TIME, SPACE = "trials", "time", "the whole space"
"""What ends a search."""


@dataclass(frozen=True)
class Bounds:
    """The most points, and the most seconds of all runs together; None: no bound."""

    trials: int
    seconds: float | None = None


def reference_point(space: Space) -> Point:
    """What the loss is counted from: the checkpoint's answers, in float from a store in fp16, at its own k and m."""
    point = space.default.having("precision", FP32).having("weight_only", NONE).having("draft_tokens", 0)
    return space.sound(point if point["codec"] is None else point.having("codec", BUILT_CODEC))


@dataclass
class Search:
    """One search under way.

    `retrieve_ms` is added to every answer's time where passages are given, 0.0 where they are searched for.
    """

    workshop: Workshop
    space: Space
    goals: Goals
    questions: Sequence[Question]
    target: Target
    lengths: Lengths
    passages: int
    retrieve_ms: float
    journal: Journal
    trials: Trials
    watch: LoadWatch
    seed: int

    def run(self, bounds: Bounds, advance: Callable[[int], None] = lambda _: None) -> str:
        """Go on until a bound is reached; returns what ended it.

        Raises OutputError for a journal that proposes otherwise, and what building and answering raise of the default.
        """
        self._reference()
        proposer = Proposer(self.space, self.seed)
        number = turn = nearer = 0
        while True:
            given = [trial for trial in self.trials.all if trial.round == turn]
            if given and given[0].by == NEARER:
                proposer.pass_over([trial.point for trial in given])
                number, turn, nearer = number + len(given), turn + 1, nearer + len(given)
                continue
            round_ = proposer.next(len(given) or bounds.trials + nearer - number)
            if not round_:
                return SPACE if proposer.exhausted else TRIALS
            for place, (who, point) in enumerate(round_):
                self._proposed(number + place, turn, who, point)
            if turn and not given and self._out_of_time(bounds):
                return TIME
            trials = self.trials.all[number : number + len(round_)]
            if not self._round(trials, bounds):
                return TIME
            proposer.tell(trials)
            number, turn = number + len(round_), turn + 1
            advance(len(round_))

    @property
    def reference(self) -> Point:
        """What the loss is counted from."""
        return reference_point(self.space)

    def measure_nearer(self, points: Sequence[Point]) -> None:
        """Build, time and ask points, whatever the bounds: a round that follows the others.

        One that was dropped because another seemed as good is tried anew: the gate passed none of the others.
        """
        known = {trial.point: trial for trial in self.trials.all}
        turn = 1 + max(trial.round for trial in self.trials.all)
        for point in points:
            trial = known.get(point)
            if trial is None or (trial.dropped is not None and trial.by != NEARER):
                self._event("proposal", number=len(self.trials.all), round=turn, by=NEARER, point=point.to_json())
        asked = set(points)
        self._round([trial for trial in self.trials.all if trial.point in asked], Bounds(0))

    def _out_of_time(self, bounds: Bounds) -> bool:
        return bounds.seconds is not None and self.journal.seconds > bounds.seconds

    def _event(self, kind: str, **values: object) -> None:
        self.trials.apply(self.journal.append({"event": kind, **values}))

    def _proposed(self, number: int, turn: int, who: str, point: Point) -> None:
        if number >= len(self.trials.all):
            self._event("proposal", number=number, round=turn, by=who, point=point.to_json())
        elif (known := self.trials.all[number]).point != point or known.round != turn:
            raise OutputError(
                "search", expected=f"point {number} to be {point.words(self.space.default)}, as is proposed now",
                found=known.point.words(self.space.default),
                fix="go on with the version of Optuna that it began with, or throw it away: --restart",
            )

    def _reference(self) -> None:
        if self.journal.first("reference") is None:
            point = self.reference
            with opened(self.workshop.built(point), point, on_gpu=False) as session:
                right = answers_right(session, point, self.questions, given=self.workshop.inputs.given)
            self._event("reference", point=point.to_json(), right=written(right))

    def _round(self, trials: Sequence[Trial], bounds: Bounds) -> bool:
        """Whether it was done before time was out; what was done of it is kept."""
        for trial in trials:
            if not trial.is_built and trial.dropped is None:
                if trial.number and self._out_of_time(bounds):
                    return False
                self._build(trial)
        for size in rungs(len(self.questions)):
            for trial in trials:
                if trial.dropped is None and len(trial.right) < size:
                    if trial.number and self._out_of_time(bounds):
                        return False
                    self._ask(trial, size)
        return True

    def _build(self, trial: Trial) -> None:
        """Build and time; a point that cannot be built, or is not finite, is dropped with the reason."""
        try:
            built = self.workshop.built(trial.point)
            timed = self._timed(built, trial.point)
        except GlimmerError as error:
            if trial.number == 0:
                raise
            self._event("dropped", number=trial.number, why=f"{type(error).__name__}: {error}")
            return
        self._event(
            "built", number=trial.number, bundle_bytes=built.bundle_bytes,
            store_bytes=built.store_bytes, own_ms=timed.own_ms, default_ms=timed.default_ms,
            digests=self.workshop.digests(trial.point),
        )
        if (why := why_not_asked(trial, self.trials, self.goals)) is not None:
            self._event("dropped", number=trial.number, why=why)

    def _timed(self, built: Built, point: Point) -> Timed:
        default = self.space.default
        beside = self.workshop.built(default)
        inputs = self.workshop.inputs
        if inputs.on_gpu:
            times = [
                floor_ms(one, its, self.target, self.lengths, self.passages) + self.retrieve_ms
                for one, its in ((built, point), (beside, default))
            ]
            return Timed((times[0],), (times[1],))
        with ExitStack() as stack:
            sessions = tuple(
                stack.enter_context(opened(one, its, on_gpu=False)) for one, its in ((built, point), (beside, default))
            )
            questions = timed_questions(self.questions, inputs.timed)
            timed = timed_beside(
                (sessions[0], sessions[1]), (point, default), questions, given=inputs.given, watch=self.watch
            )
        more = self.retrieve_ms
        return Timed(tuple(ms + more for ms in timed.own_ms), tuple(ms + more for ms in timed.default_ms))

    def _ask(self, trial: Trial, size: int) -> None:
        questions = self.questions[len(trial.right) : size]
        try:
            built = self.workshop.built(trial.point)
            with opened(built, trial.point, on_gpu=self.workshop.inputs.on_gpu) as session:
                right = answers_right(session, trial.point, questions, given=self.workshop.inputs.given)
        except GlimmerError as error:
            if trial.number == 0:
                raise
            self._event("dropped", number=trial.number, why=f"{type(error).__name__}: {error}")
            return
        self._event("asked", number=trial.number, right=written(right))
        if (why := why_dropped(trial, self.trials, self.goals)) is not None:
            self._event("dropped", number=trial.number, why=why)
