"""What a parity run found, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.parity.attribution import PartEffect, costliest_part
from glimmer_export.exporter.parity.figures import (
    MAX_EXAMPLES,
    Answered,
    Coverage,
    Delta,
    Difference,
    FirstDifference,
    LogProbabilityDifference,
    answers_equal,
    coverage_of,
    differences_of,
    em_of,
    equal_of_correct,
    f1_of,
    first_difference_of,
    gold_in_top_m,
    log_probability_difference,
    mean_kendall_tau,
    passages_read,
    score_snr_db,
    top_m_overlap,
)
from glimmer_export.exporter.parity.graph_errors import GraphError
from glimmer_export.exporter.parity.graph_sets import Compared
from glimmer_export.exporter.parity.inputs import Rows
from glimmer_export.exporter.parity.options import ParityOptions
from glimmer_export.exporter.parity.sides import Reply
from glimmer_export.runtime.backends import Backend
from glimmer_export.runtime.contract import BF16, BundleManifest, Computation, GateResult, computed_in_bf16
from glimmer_export.runtime.opening import compute_precision_in

__all__ = ["BothSides", "ParityReport", "Sample", "SideName", "report_from_replies"]

MAX_SCORE_PAIRS = 2000
SAMPLES = 8


@dataclass(frozen=True)
class SideName:
    """What was compared: `kind` is `checkpoint` or `bundle`; `precision` the arithmetic's, by graph.

    `graph_bytes` is the size of a bundle's graphs on disk, None for a checkpoint.
    """

    kind: str
    path: str
    backend: str
    precision: dict[str, str]
    graph_bytes: int | None = None

    @classmethod
    def of_bundle(cls, path: Path, manifest: BundleManifest, backend: Backend) -> SideName:
        """A bundle that a backend runs."""
        rounded = compute_precision_in(backend) == BF16
        graphs = {
            name: computed_in_bf16(item.precision) if rounded else item.precision
            for name, item in manifest.graphs.items()
        }
        size = sum(file.bytes for file in manifest.graph_files())
        return cls("bundle", str(path), backend.name, graphs, size)


@dataclass(frozen=True)
class BothSides:
    """A figure of the reference and of the candidate."""

    reference: float | None
    candidate: float | None


@dataclass(frozen=True)
class Sample:
    """A question that was answered, with both sides' words; `equal`: of the same tokens."""

    question: str
    reference: str
    candidate: str
    equal: bool


@dataclass(frozen=True)
class ParityReport:
    """Bundle (the candidate) against a torch checkpoint or another bundle (the reference), on the same passages.

    `coverage` says what it rests on: only questions that were answered count in shares, metrics and differences. Of the
    passages given with them `skipped_passages` had no text, and `truncated_passages` were cut to passage_length. Shares
    and metrics run from 0 to 1; None if there was nothing to measure: no selection in this architecture, no gold
    answers, no memory. `compared` says what the candidate computed, and which of its graphs witness something.
    `memory_max_abs_err` is the candidate's store, decoded, against what the reference's memory encoder gives.
    `score_snr_db` is None if nothing is ranked, `log_probability` if a side is a bundle of before there was one, and if
    no answers are equal.
    `mass` is what the candidate's reading was bound by, None if it read all m; of what it then reads, `top_m_overlap`
    is the share that the reference reads too. `draft_tokens` are those of the candidate's drafts, 0: it looked none up.
    `exact_ranking`: the reference ranked all k, and the candidate those of its shortlist.
    `attribution` is None if it was not asked for, `gate` if there was none.
    `speed` is how many times faster the candidate answered the same batches, in turn (the median; retrieval not
    counted), None beside torch. `score_pairs`
    (n, 2) are scores of reference and candidate, for a plot; `samples` some of the answers, equal or not, for a page.
    """

    reference: SideName
    candidate: SideName
    compared: Compared
    coverage: Coverage
    passages: str
    reference_memory: str
    selects: bool
    answers_equal: float | None
    answers_equal_of_correct: float | None
    top_m_overlap: float | None
    passages_read: BothSides
    kendall_tau: float | None
    score_snr_db: float | None
    gold_in_top_m: BothSides
    em: Delta
    f1: Delta
    first_difference: FirstDifference
    differences: Sequence[Difference]
    log_probability: LogProbabilityDifference | None
    memory_max_abs_err: float | None
    graphs: dict[str, GraphError]
    speed: float | None = None
    mass: float | None = None
    draft_tokens: int = 0
    exact_ranking: bool = False
    attribution: dict[str, PartEffect] | None = None
    gate: GateResult | None = None
    skipped_passages: int = 0
    truncated_passages: int = 0
    samples: tuple[Sample, ...] = ()
    score_pairs: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    @property
    def computation(self) -> Computation:
        """What the candidate computed."""
        return self.compared.computation

    @property
    def questions(self) -> int:
        """How many could be taken, whether a passage was found for them or not."""
        return self.coverage.asked - self.coverage.refused

    @property
    def errors(self) -> int:
        """How many could not be taken."""
        return self.coverage.refused

    @property
    def costliest_part(self) -> str | None:
        """The part that moves the reference's answers most; None if none was found to, or was looked for."""
        return costliest_part(self.attribution or {})

    def to_json(self) -> dict[str, Any]:
        """The report under the keys that `--json` promises; infinities stay, which JSON writes as null."""
        metrics: dict[str, Any] = {}
        for name, metric in (("em", self.em), ("f1", self.f1)):
            metrics |= {
                f"{name}_reference": metric.reference, f"{name}_candidate": metric.candidate,
                f"{name}_delta": metric.delta, f"{name}_delta_interval": metric.interval,
            }  # fmt: skip
        attribution = self.attribution
        return {
            "reference": asdict(self.reference),
            "candidate": asdict(self.candidate),
            "compared": asdict(self.compared),
            "coverage": asdict(self.coverage),
            "questions": self.questions,
            "errors": self.errors,
            "skipped_passages": self.skipped_passages,
            "truncated_passages": self.truncated_passages,
            "passages": self.passages,
            "reference_memory": self.reference_memory,
            "answers_equal": self.answers_equal,
            "answers_equal_of_correct": self.answers_equal_of_correct,
            "top_m_overlap": self.top_m_overlap,
            "mass": self.mass,
            "draft_tokens": self.draft_tokens,
            "exact_ranking": self.exact_ranking,
            "passages_read": asdict(self.passages_read),
            "kendall_tau": self.kendall_tau,
            "score_snr_db": self.score_snr_db,
            "gold_in_top_m": asdict(self.gold_in_top_m),
            **metrics,
            "first_difference": asdict(self.first_difference),
            "differences": [asdict(item) for item in self.differences[:MAX_EXAMPLES]],
            "log_probability": None if self.log_probability is None else asdict(self.log_probability),
            "speed": self.speed,
            "memory_max_abs_err": self.memory_max_abs_err,
            "graphs": {name: asdict(error) for name, error in self.graphs.items()},
            "attribution": None if attribution is None else {name: asdict(part) for name, part in attribution.items()},
            "costliest_part": self.costliest_part,
            "gate": None if self.gate is None else {**asdict(self.gate), "checks": [*map(asdict, self.gate.checks)]},
        }


def report_from_replies(
    names: tuple[SideName, SideName],
    rows: Rows,
    replies: tuple[list[Reply], list[Reply]],
    options: ParityOptions,
    *,
    compared: Compared,
    selects: bool,
    memory_max_abs_err: float | None,
    graphs: dict[str, GraphError],
    speed: float | None,
    attribution: dict[str, PartEffect] | None,
) -> ParityReport:
    """Sum up; `names` and `replies` are the reference's and the candidate's."""
    coverage, answered = coverage_of(rows.rows, *replies, refused=rows.errors)
    asked, references, candidates = answered.rows, answered.references, answered.candidates
    differences = differences_of(asked, references, candidates)
    memory = "reference_store" if options.reference_store is not None else "store"
    return ParityReport(
        reference=names[0],
        candidate=names[1],
        compared=compared,
        coverage=coverage,
        passages="given" if options.given_passages else "retrieved",
        reference_memory="exact" if options.exact_memory else memory,
        selects=selects,
        answers_equal=answers_equal(references, candidates),
        answers_equal_of_correct=equal_of_correct(asked, references, candidates),
        top_m_overlap=top_m_overlap(references, candidates, of_candidate=options.mass is not None),
        passages_read=BothSides(passages_read(references), passages_read(candidates)),
        kendall_tau=mean_kendall_tau(references, candidates),
        score_snr_db=score_snr_db(references, candidates),
        gold_in_top_m=BothSides(gold_in_top_m(asked, references), gold_in_top_m(asked, candidates)),
        em=em_of(asked, references, candidates),
        f1=f1_of(asked, references, candidates),
        first_difference=first_difference_of(differences),
        differences=differences,
        log_probability=log_probability_difference(references, candidates),
        memory_max_abs_err=memory_max_abs_err,
        graphs=graphs,
        speed=speed,
        mass=options.mass,
        draft_tokens=options.draft_tokens,
        exact_ranking=options.exact_ranking,
        attribution=attribution,
        skipped_passages=rows.skipped_passages,
        truncated_passages=rows.truncated_passages,
        samples=_samples(answered),
        score_pairs=_score_pairs(references, candidates),
    )


def _samples(answered: Answered) -> tuple[Sample, ...]:
    """Of the questions that were answered, in even steps through all."""
    found = list(zip(answered.rows, answered.references, answered.candidates, strict=True))
    return tuple(
        Sample(row.question.question, one.text, other.text, one.tokens == other.tokens)
        for row, one, other in (found[place] for place in spread(range(len(found)), SAMPLES))
    )


def _score_pairs(references: Sequence[Reply], candidates: Sequence[Reply]) -> NDArray[np.float32]:
    """Scores of both sides (n, 2), evenly thinned out to what a plot can show."""
    pairs = [
        np.stack([one.scores, other.scores], 1)
        for one, other in zip(references, candidates, strict=True)
        if one.scores is not None and other.scores is not None
    ]
    if not pairs:
        return np.zeros((0, 2), np.float32)
    together = np.concatenate(pairs)
    return together[:: -(-len(together) // MAX_SCORE_PAIRS)]
