"""What a point gives: which questions it has right, and how long an answer takes beside the default's.

Times are taken here where the target is a CPU: blocks of whole answers, one after the other, the point's and the
default's in turn, so that what else the machine does meets both. Of a GPU, which is not at hand, they are the target's
model: the floors of `cost`, below which no machine of its rates can come.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import median

from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.answering.metrics import exact_match
from glimmer_export.exporter.bench.load import LoadWatch
from glimmer_export.exporter.bench.measure import interleaved
from glimmer_export.exporter.config.targets import Target
from glimmer_export.exporter.cost.model import Workload, model_from_manifest
from glimmer_export.exporter.cost.roofline import stage_floors
from glimmer_export.exporter.tune.lines import ANSWERING_BATCH
from glimmer_export.exporter.tune.space import Point
from glimmer_export.exporter.tune.workshop import Built
from glimmer_export.runtime import Answer, PassageTruncatedWarning, Session
from glimmer_export.runtime.contract import CPU_BACKEND, STAGES, read_manifest

__all__ = ["BLOCKS", "HERE", "MODEL", "Lengths", "Timed", "answers_right", "floor_ms", "opened", "timed_beside"]

HERE, MODEL = "measured here", "the target's model"
BLOCKS = 5
WARM_UPS = 2


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of the search's questions, of passages and of gold answers, EOS included."""

    question: int
    passage: int
    answer: int


@dataclass(frozen=True)
class Timed:
    """Median milliseconds of an answer in each block, the point's and the default's; of a model one of each."""

    own_ms: tuple[float, ...]
    default_ms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The point's time by the default's: the median over blocks that stood side by side."""
        return median(own / other for own, other in zip(self.own_ms, self.default_ms, strict=True))


@contextmanager
def opened(built: Built, point: Point, *, on_gpu: bool) -> Iterator[Session]:
    """A session as the point asks for it; of a GPU's bundle one that rounds as a GPU does."""
    with ExitStack() as stack:
        if on_gpu:
            rounding = RoundingBackend(None)
            stack.callback(rounding.close)
            yield stack.enter_context(Session.open(built.bundle, built.store, backend=rounding, draft_tokens=0))
        else:
            yield stack.enter_context(
                Session.open(
                    built.bundle, built.store, backend=CPU_BACKEND, threads=point.number("threads"),
                    draft_tokens=point.number("draft_tokens"), compute_precision="fp32", verify=False,
                )
            )


def answers_right(
    session: Session, point: Point, questions: Sequence[Question], *, given: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """1.0 for each question whose answer is a gold one, else 0.0: what `answer` counts as exact match."""
    right: list[float] = []
    for start in range(0, len(questions), ANSWERING_BATCH):
        batch = questions[start : start + ANSWERING_BATCH]
        answers = _answered(session, point, batch, given=given)
        right += [exact_match(one.answer, question.answers) for one, question in zip(answers, batch, strict=True)]
        advance(len(batch))
    return right


def timed_beside(
    sessions: tuple[Session, Session], points: tuple[Point, Point], questions: Sequence[Question], *,
    given: bool, blocks: int = BLOCKS, watch: LoadWatch | None = None,
) -> Timed:
    """Time the first of two points beside the second, which is the default, over the same questions."""
    watch = watch or LoadWatch()
    found: tuple[list[float], list[float]] = ([], [])
    for name, block in _turns(blocks):
        place = 0 if name == "point" else 1
        batch = points[place].number("batch")
        parts = [questions[start : start + batch] for start in range(0, len(questions), batch)]
        with watch.during(name):
            for part in islice(parts, WARM_UPS if block == 0 else 1):
                _answer(sessions[place], points[place], part, given=given)
            found[place].append(
                median(_answer(sessions[place], points[place], part, given=given) for part in parts)
            )
    return Timed(tuple(found[0]), tuple(found[1]))


def _turns(blocks: int) -> Iterator[tuple[str, int]]:
    for block, name in interleaved(("point", "default"), blocks):
        yield name, block


def _answer(session: Session, point: Point, questions: Sequence[Question], *, given: bool) -> float:
    """Milliseconds of one batch from end to end, retrieval included."""
    started = time.perf_counter()
    _answered(session, point, questions, given=given)
    return 1e3 * (time.perf_counter() - started)


def _answered(session: Session, point: Point, questions: Sequence[Question], *, given: bool) -> list[Answer]:
    passages = [given_passages(question) for question in questions] if given else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassageTruncatedWarning)
        return session.answer_many(
            [question.question for question in questions], point.number("k"), _count(point["m"]),
            mass=_share(point["mass"]), passages=passages,
        )


def timed_questions(questions: Sequence[Question], count: int) -> list[Question]:
    """Those that are timed: in even steps, as `--limit` takes them."""
    return spread(questions, count)


def floor_ms(built: Built, point: Point, target: Target, lengths: Lengths, passages: int) -> float:
    """The least milliseconds that a question takes on a target, by its model, in the point's precisions.

    Each graph in its own precision: what stays in float is reckoned so.
    """
    manifest = read_manifest(built.bundle)
    k = point.number("k")
    workload = Workload(k, min(_count(point["m"]) or k, k), lengths.question, lengths.passage, lengths.answer, passages)
    model = model_from_manifest(str(built.bundle), manifest, workload)
    codec = point["codec"]
    graphs = manifest.stages(None if codec is None else str(codec))
    floors = {name: stage_floors(model, workload, target, name) for name in ("fp32", "fp16", "int8")}
    total = 0.0
    for stage in floors["fp32"]:
        if STAGES[stage].runs(manifest.model, lengths.answer):
            precision = manifest.graphs[graphs[stage]].precision if stage in graphs else "fp32"
            total += floors[_rate(precision)][stage].ms
    return total


def _rate(precision: str) -> str:
    """Whose rates a graph's precision has at best."""
    return "int8" if "int8" in precision else "fp16" if "fp16" in precision else "fp32"


def _count(value: object) -> int | None:
    assert value is None or isinstance(value, int)
    return value


def _share(value: object) -> float | None:
    assert value is None or isinstance(value, float)
    return value
