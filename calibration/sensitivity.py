"""The loss of each group of products quantised alone, on real questions, and what to keep in float for a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from glimmer_export.calibration.groups import CountingBackend, Group, find_groups
from glimmer_export.calibration.load_graph import load_graph
from glimmer_export.calibration.losses import Asked, Losses, Observation, losses, observe
from glimmer_export.calibration.policy import Policy
from glimmer_export.calibration.quantize import (
    GraphOptions,
    WeightOnly,
    has_eight_bits,
    quantize_graph,
    stays_float,
)
from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.calibration.ranges import RangeTable
from glimmer_export.calibration.scheme import Scheme
from glimmer_export.calibration.spread import spread
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Backend, Graph
from glimmer_export.runtime.backends.registry import open_backend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import CPU_BACKEND, CalibrationError, stage_of

__all__ = [
    "Choice", "GroupLoss", "Kept", "Quantization", "Sensitivity", "SensitivityOptions", "keep_greedily",
    "sensitivity",
]  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A group by its expression: the loss that quantising it alone brings, and the share that keeping it costs."""

    pattern: str
    loss: float
    cost: float


@dataclass(frozen=True)
class Kept:
    """One group kept in float: its own cost, that of all so far, and the loss predicted to remain."""

    pattern: str
    loss: float
    cost: float
    total_cost: float
    remaining_loss: float


def keep_greedily(choices: Iterable[Choice], budget: float) -> list[Kept]:
    """The groups to keep within `budget`, a share, best loss for its cost first.

    One that no longer fits is passed over, for smaller ones may. Losses are taken to add up, as those of independent
    errors do. A group without loss is never kept.
    """
    choices = sorted(choices, key=lambda item: (-item.loss / item.cost if item.cost else -float("inf"), -item.loss))
    kept: list[Kept] = []
    total = 0.0
    left = [choice.loss for choice in choices]
    for place, choice in enumerate(choices):
        if choice.loss > 0 and total + choice.cost <= budget:
            total += choice.cost
            left[place] = 0.0
            kept.append(Kept(choice.pattern, choice.loss, choice.cost, total, sum(left)))
    return kept


"""What keeping a group costs: its share of a question's multiply-adds (time), of the weights (size), or the larger."""
COUNTED_QUESTIONS = 32
"""Of which the multiply-adds are counted, one at a time so that no padding counts."""

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Quantization:
    """How groups are quantised. `lazy_layers`: by graph, the prefix of nodes that are computed for one token.

    `weight_only`: to weights of 4 bits beside float activations, those that are kept having 8; None to INT8, those that
    are kept staying in float.
    """

    table: RangeTable
    scheme: Scheme
    policy: Policy
    lazy_layers: dict[str, str] = field(default_factory=dict)
    weight_only: WeightOnly | None = None

    @property
    def stages(self) -> dict[str, str]:
        """The calibrated graphs by the stages that they compute."""
        return {stage_of(name): name for name in self.table.graphs}


@dataclass(frozen=True)
class SensitivityOptions:
    """`samples` questions in even steps over the file; `given` takes the file's passages; `graphs` None for all.

    `budget` is the share, by `cost` (one of COSTS), that may stay in float. `backend` is the name of what runs all of
    the graphs, which must be one that takes any: not engines built of a bundle's.
    """

    samples: int = 100
    given: bool = False
    graphs: tuple[str, ...] | None = None
    budget: float = 0.05
    cost: str = "larger"
    batch_size: int = 8
    threads: int | None = None
    backend: str = CPU_BACKEND


@dataclass(frozen=True)
class GroupLoss:
    """A group's losses, its shares of multiply-adds a question and of weights, and whether the policy keeps it."""

    group: Group
    losses: Losses
    work: float
    weights: float
    kept_by_policy: bool

    def cost(self, kind: str) -> float:
        """What keeping it in float costs, by a name of COSTS."""
        return {"work": self.work, "weights": self.weights, "larger": max(self.work, self.weights)}[kind]


@dataclass(frozen=True)
class Sensitivity:
    """Groups by loss, the worst first; `keep` is the greedy list.

    Measured with several groups quantised at once: `everything`, what the `policy` leaves, and all but `keep`. Each has
    a prediction beside it, the sum of its groups' losses. What weights of 8 bits lose that are kept among those of 4 is
    measured with the rest, and is none of the sum.
    """

    questions: int
    not_answered: int
    groups: list[GroupLoss]
    everything: Losses
    policy: Losses
    keep: list[Kept]
    without_kept: Losses

    @property
    def predicted(self) -> dict[str, tuple[float | None, float]]:
        """Score noise and logit noise by addition: of everything, of the policy, and of all but `keep`."""
        kept = {item.pattern for item in self.keep}
        return {
            "everything": _sums(self.groups),
            "policy": _sums([item for item in self.groups if not item.kept_by_policy]),
            "without_kept": _sums([item for item in self.groups if item.group.pattern not in kept]),
        }


def sensitivity(
    bundle: str | Path,
    store: str | Path | None,
    questions: Sequence[Question],
    quantization: Quantization,
    options: SensitivityOptions,
    *,
    progress: Progress,
) -> Sensitivity:
    """Measure every group of an FP32 bundle's graphs; nothing is written.

    The reference is what the bundle itself answers. One graph at a time is quantised, in one group, with the policy's
    exact rewrites, and takes the float graph's place; what the policy keeps is measured too. The store stays as it was
    built, so the memory encoder's groups are felt in the question's states alone. `progress` is given the number of
    questions to be asked in all, and yields what is told how many came to be done.

    Raises CalibrationError (no question that could be answered, a range is missing) and what opening a session raises.
    """
    sample = [questions[index] for index in spread(range(len(questions)), options.samples)]
    asked = [Asked(row.question, given_passages(row) if options.given else None) for row in sample]
    opened = Bundle.open(bundle)
    stages = quantization.stages
    names = [stage for stage in stages if options.graphs is None or stage in options.graphs]
    groups = [group for name in names for group in _groups(opened.graph_path(stages[name]), name, quantization)]
    with (
        progress((len(groups) + 5) * len(asked)) as advance,
        closing(open_backend(options.backend, opened.directory, threads=options.threads)) as backend,
    ):
        work = _count_work(bundle, store, asked, backend)
        advance(len(asked))
        with Session.open(bundle, store, threads=options.threads, backend=backend, draft_tokens=0) as session:
            bench = _Bench(session, backend, asked, quantization, options, advance)
            found = {group: bench.losses([group]) for group in groups}
            rows = _rows(groups, found, work, quantization)
            keep = keep_greedily(
                (Choice(row.group.pattern, row.losses.loss, row.cost(options.cost)) for row in rows), options.budget
            )
            kept = {item.pattern for item in keep}
            return Sensitivity(
                questions=len(bench.reference.places),
                not_answered=len(asked) - len(bench.reference.places),
                groups=rows,
                everything=bench.losses(groups),
                policy=bench.losses(
                    [row.group for row in rows if not row.kept_by_policy],
                    [row.group for row in rows if row.kept_by_policy],
                ),
                keep=keep,
                without_kept=bench.losses(
                    [group for group in groups if group.pattern not in kept],
                    [group for group in groups if group.pattern in kept],
                ),
            )


class _Bench:
    """A loaded FP32 session, its answers, and graphs put in its own's places."""

    def __init__(
        self, session: Session, backend: Backend, asked: Sequence[Asked], quantization: Quantization,
        options: SensitivityOptions, advance: Callable[[int], None],
    ) -> None:
        self._session, self._quantization, self._options = session, quantization, options
        self._backend = backend
        self._advance = advance
        self.reference = observe(session, asked, batch_size=options.batch_size, advance=advance)
        if not self.reference.places:
            raise CalibrationError(
                f"{len(asked)} questions", expected="at least one that retrieves a passage and can be answered",
                found="none", fix="take questions that go with the store",
            )
        # What was retrieved once is given from now on.
        self._asked = [
            Asked(asked[place].question, passages)
            for place, passages in zip(self.reference.places, self.reference.passages, strict=True)
        ]
        self._not_asked = len(asked) - len(self._asked)

    def losses(self, groups: Collection[Group], kept: Collection[Group] = ()) -> Losses:
        """Of these groups quantised together, all else in float; of weights alone, what is `kept` in 8 bits."""
        session = self._session
        kept = kept if self._quantization.weight_only is not None else ()
        stages = {group.graph for group in (*groups, *kept)}
        swapped = {stage: self._quantized(stage, groups, kept) for stage in stages}
        graphs = {**session.graphs, **swapped}
        changed = Session(session.bundle, session.store, graphs, session.text, session.codec)
        found = observe(changed, self._asked, batch_size=self._options.batch_size, advance=self._advance)
        self._advance(self._not_asked)
        return losses(_renumbered(self.reference), found)

    def _quantized(self, stage: str, groups: Collection[Group], kept: Collection[Group]) -> Graph:
        import onnx_ir

        bundle, quantization = self._session.bundle, self._quantization
        name = quantization.stages[stage]
        nodes = frozenset(node for group in (*groups, *kept) if group.graph == stage for node in group.nodes)
        model = load_graph(bundle.graph_path(name))
        ranges = TrackedRanges(quantization.table.graphs.get(name, {}))
        options = _graph_options(stage, quantization, only=nodes)
        if (weights := options.weight_only) is not None:  # whatever the policy makes of it
            weights = replace(weights, eight_bit=tuple(group.pattern for group in kept))
            policy = options.policy.model_copy(update={"eight_bit": ()})
            options = replace(options, weight_only=weights, policy=policy)
        quantize_graph(model, ranges, options)
        # A folder for each: a loaded graph may still read its file, which must not be written over.
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            onnx_ir.save(model, path, external_data=f"{name}.onnx.data")
            return self._backend.load(path, bundle.manifest.io()[name])


def _renumbered(reference: Observation) -> Observation:
    """Of the questions that were answered, which alone are asked again."""
    return Observation(
        list(range(len(reference.places))), reference.scores, reference.selected, reference.logits, reference.tokens
    )


def _groups(path: Path, name: str, quantization: Quantization) -> list[Group]:
    from glimmer_export.calibration.passes.block_products import block_candidates
    from glimmer_export.calibration.passes.fold_weights import FoldWeights

    model = load_graph(path)
    FoldWeights()(model)
    groups = find_groups(model.graph, name, embeddings=quantization.policy.embeddings)
    if quantization.weight_only is None:
        return groups
    able = {linear.name for linear in block_candidates(model.graph)}
    return [group for group in groups if able.issuperset(group.nodes)]


def _graph_options(name: str, quantization: Quantization, *, only: Collection[str] | None) -> GraphOptions:
    return GraphOptions(
        name, int8=quantization.weight_only is None, fp16=False, scheme=quantization.scheme, policy=quantization.policy,
        method=quantization.table.method, lazy_layer=quantization.lazy_layers.get(name), only=only,
        weight_only=quantization.weight_only,
    )


def _count_work(
    bundle: str | Path, store: str | Path | None, asked: Sequence[Asked], backend: Backend
) -> dict[tuple[str, str], float]:
    counting = CountingBackend(backend)
    places = spread(range(len(asked)), COUNTED_QUESTIONS)
    with Session.open(bundle, store, backend=counting, verify=False, draft_tokens=0) as session:
        observe(session, [asked[place] for place in places], batch_size=1)
    return counting.work


def _rows(
    groups: Sequence[Group], found: dict[Group, Losses], work: dict[tuple[str, str], float], quantization: Quantization
) -> list[GroupLoss]:
    """By loss; shares are of all the groups measured."""
    worked = {group: sum(work[group.graph, node] for node in group.nodes) for group in groups}
    all_work, all_weights = sum(worked.values()), sum(group.weights for group in groups)
    rows = []
    for group in groups:
        by_policy = _graph_options(group.graph, quantization, only=None)
        weights = by_policy.weight_only
        kept = all(
            stays_float(node, by_policy) if weights is None else has_eight_bits(node, by_policy, weights)
            for node in group.nodes
        )
        rows.append(GroupLoss(group, found[group], worked[group] / all_work, group.weights / all_weights, kept))
    return sorted(rows, key=lambda row: -row.losses.loss)


def _sums(rows: Sequence[GroupLoss]) -> tuple[float | None, float]:
    scores = [row.losses.score_noise for row in rows]
    return (
        None if None in scores else sum(noise for noise in scores if noise is not None),
        sum(row.losses.logit_noise for row in rows),
    )
