"""Everything that `glimmer-export cost` is asked and says, put together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bundle.forms import FormOptions
from glimmer_export.exporter.checkpoint.options import parse_proportion
from glimmer_export.exporter.config.read import config_label
from glimmer_export.exporter.config.targets import PRECISIONS, Target, read_target
from glimmer_export.exporter.cost.count import count_graph
from glimmer_export.exporter.cost.model import (
    DEFAULT_CUT,
    CostModel,
    Proportions,
    Workload,
    check_same_size,
    check_workload,
    model_from_manifest,
    model_from_preset,
    model_from_shape,
    run_dims,
)
from glimmer_export.exporter.cost.ours import StageCost, decoder_cache_bytes, passage_macs, stage_costs, store_codecs
from glimmer_export.exporter.cost.papers import (
    FIGURE_2,
    PAPER_ARCHITECTURES,
    FigureCheck,
    check_figure_2,
    paper_stages,
    samples_per_tflop,
)
from glimmer_export.exporter.cost.roofline import Floor, StepBytes, stage_floors, step_bytes
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BundleManifest, Forms, ModelShape, OptionError

__all__ = [
    "CONVENTION", "CostReport", "CostRequest", "QuestionCost", "Resolved", "TargetFloors", "cost_report",
    "question_cost", "resolve",
]  # fmt: skip

NUM_RETRIEVED, NUM_SELECTED = 25, 5
QUESTION_TOKENS, PASSAGE_TOKENS, ANSWER_TOKENS = 48, 304, 16


@dataclass(frozen=True)
class CostRequest:
    """Options as given; None is the bundle's own value if there is a bundle, and else the papers'.

    Counts are of passages and tokens; `passages` is the size of the corpus. Proportions are written as "1/3" or "0.25".
    """

    model: str | None = None
    architecture: str | None = None
    k: int | None = None
    m: int | None = None
    question_tokens: int | None = None
    passage_tokens: int | None = None
    answer_tokens: int = ANSWER_TOKENS
    stage_a: str | None = None
    cross_attention: str = "auto"
    live_proportion: str | None = None
    rerank_proportion: str | None = None
    score_pooling: str | None = None
    separate_reranker: bool = False
    shortlist: int | None = None
    passages: int = 1_000_000
    target: str | None = None
    bundle: Path | None = None


@dataclass(frozen=True)
class Resolved:
    """A model, one question's workload, and the bundle whose graphs are to be counted."""

    model: CostModel
    workload: Workload
    bundle: Bundle | None


def resolve(request: CostRequest) -> Resolved:
    """Check everything that was asked for.

    Raises OptionError for an option out of range, unknown, or at odds with the others; BundleError for what is no
    bundle; CheckpointError if the proportions leave a part of the model empty.
    """
    if request.bundle is None:
        return _of_preset(request)
    bundle = Bundle.open(request.bundle)
    workload = _workload(request, bundle.manifest.model)
    _check_bundle_fits(request, bundle.manifest)
    _check_prefix(workload, bundle.manifest)
    model = model_from_manifest(str(request.bundle), bundle.manifest, workload)
    if request.model is not None:
        check_same_size(model, request.model)
    return Resolved(model, workload, bundle)


def _of_preset(request: CostRequest) -> Resolved:
    if request.model is None:
        raise OptionError(
            "cost", expected="--model SIZE or --bundle BUNDLE", found="neither", fix="say which model"
        )
    workload = _workload(request, None)
    cut = Proportions(
        _proportion(request.live_proportion, "--live-proportion", DEFAULT_CUT.live),
        _proportion(request.rerank_proportion, "--rerank-proportion", DEFAULT_CUT.rerank),
    )
    forms = FormOptions(
        request.stage_a, request.cross_attention, request.answer_tokens, request.target or "cpu"
    )
    architecture = request.architecture or "glimmer"
    model = model_from_preset(
        request.model, architecture, workload, forms, cut, request.score_pooling or "first",
        separate_reranker=request.separate_reranker, num_shortlisted=request.shortlist,
    )
    return Resolved(model, workload, None)


def _proportion(text: str | None, option: str, default: Fraction) -> Fraction:
    return default if text is None else parse_proportion(text, option=option)


def _workload(request: CostRequest, shape: ModelShape | None) -> Workload:
    k = _first(request.k, shape.num_retrieved if shape else NUM_RETRIEVED)
    default_m = shape.num_selected if shape and shape.num_selected else NUM_SELECTED
    question_tokens = _first(request.question_tokens, shape.question_length if shape else QUESTION_TOKENS)
    passage_tokens = shape.passage_length if shape else PASSAGE_TOKENS
    if shape and shape.question_layout == "joined":  # one limit for both
        question_tokens = _first(request.question_tokens, min(QUESTION_TOKENS, shape.passage_length // 2))
        passage_tokens = max(1, shape.passage_length - question_tokens)
    workload = Workload(
        num_retrieved=k,
        num_selected=_first(request.m, max(1, min(default_m, k))),
        question_tokens=question_tokens,
        passage_tokens=_first(request.passage_tokens, passage_tokens),
        answer_tokens=request.answer_tokens,
        corpus_passages=request.passages,
    )
    check_workload(workload)
    return workload


def _first(given: int | None, default: int) -> int:
    return default if given is None else given


def _check_bundle_fits(request: CostRequest, manifest: BundleManifest) -> None:
    """What a bundle has decided may be said again, not changed."""
    cross_attention = None if request.cross_attention == "auto" else request.cross_attention
    decided = {
        "--architecture": (request.architecture, manifest.model.architecture),
        "--stage-a": (request.stage_a, manifest.stage_a or "full"),
        "--cross-attention": (cross_attention, manifest.cross_attention),
        "--live-proportion": (request.live_proportion, None),
        "--rerank-proportion": (request.rerank_proportion, None),
        "--score-pooling": (request.score_pooling, None),
        "--separate-reranker": (request.separate_reranker or None, None),
        "--shortlist": (request.shortlist, manifest.model.num_shortlisted),
    }
    for option, (given, own) in decided.items():
        if given not in (None, own):
            expected = f"{own}, as the bundle has it" if own else "none, as the bundle has its own"
            raise OptionError(f"option {option}", expected=expected, found=str(given), fix="leave the option out")


def _check_prefix(workload: Workload, manifest: BundleManifest) -> None:
    """Where the question stands in front of the answer, the graphs have the length of the decoder's cache built in."""
    limits = {
        "--question-tokens": (workload.question_tokens, manifest.model.question_length),
        "--answer-tokens": (workload.answer_tokens, manifest.model.max_new_tokens),
    }
    for option, (value, limit) in limits.items():
        if manifest.model.traits.prefixes_decoder and value > limit:
            raise OptionError(
                f"option {option}", expected=f"at most the bundle's {limit}", found=str(value), fix="lower it"
            )


CONVENTION = (
    "A multiply-add is one operation, in samples per TFLOP too, as in the GLIMMER paper's figure 2. The papers' "
    "formulas leave out attention's products and the vocabulary projection; ours have every matrix product."
)


@dataclass(frozen=True)
class TargetFloors:
    """A machine's floors: by precision and graph in milliseconds a question, and seconds to pre-compute the corpus."""

    name: str
    target: Target
    stages: dict[str, dict[str, Floor]]
    precomputation_s: dict[str, float]


@dataclass(frozen=True)
class CostReport:
    """What one question costs. `papers` and `ours` are multiply-adds by stage; `counted` those of a bundle's graphs.

    Stages of `ours` and `counted` bear the names of the graphs that compute them.
    """

    model: CostModel
    workload: Workload
    papers: dict[str, dict[str, int]]
    ours: dict[str, StageCost]
    counted: dict[str, StageCost] | None
    passage_macs: int
    codecs: dict[str, int]
    cache_bytes: dict[str, int]
    step_bytes: StepBytes
    figure_2: FigureCheck
    floors: TargetFloors | None

    @property
    def our_macs(self) -> int:
        """Multiply-adds of one question in our graphs."""
        return sum(stage.macs for stage in self.ours.values())

    @property
    def counted_macs(self) -> int | None:
        """The same counted node by node; None without a bundle."""
        return None if self.counted is None else sum(stage.macs for stage in self.counted.values())

    def paper_macs(self, architecture: str) -> int:
        """Multiply-adds by a paper's formula."""
        return sum(self.papers[architecture].values())

    @property
    def ratio_to_paper(self) -> float:
        """The paper's formula for the model's architecture over ours: above 1 where our graphs do less."""
        return self.paper_macs(self.model.shape.architecture) / self.our_macs

    @property
    def samples_per_tflop(self) -> dict[str, float]:
        """Questions for 10**12 multiply-adds, at the k and m asked for."""
        papers = {name: samples_per_tflop(self.paper_macs(name)) for name in PAPER_ARCHITECTURES}
        return {**papers, "ours": samples_per_tflop(self.our_macs)}

    def to_json(self) -> dict[str, Any]:
        """The report; `counted` and `target` stand in it only if a bundle or a target was named."""
        model, passages = self.model, self.workload.corpus_passages
        value: dict[str, Any] = {
            "model": model.name,
            "architecture": model.shape.architecture,
            "convention": CONVENTION,
            "sizes": asdict(self.workload),
            "layers": {
                "memory": model.shape.num_memory_layers,
                "stage_a": model.shape.num_stage_a_layers,
                "stage_b": model.shape.num_stage_b_layers,
                "decoder": model.shape.num_decoder_layers,
            },
            "separate_reranker": model.shape.separate_reranker,
            "num_shortlisted": model.shape.num_shortlisted,
            "forms": {"stage_a": model.forms.stage_a, "cross_attention": model.forms.cross_attention},
            "papers": {
                name: {
                    "macs": self.paper_macs(name), "stages": {stage: {"macs": macs} for stage, macs in stages.items()}
                }
                for name, stages in self.papers.items()
            },
            "ours": {"macs": self.our_macs, "stages": _stages(self.ours)},
            "ratio_to_paper": self.ratio_to_paper,
            "samples_per_tflop": self.samples_per_tflop,
            "figure_2": _figure(self.figure_2),
            "precomputation": {"macs_per_passage": self.passage_macs, "macs": self.passage_macs * passages},
            "store": {
                "passages": passages,
                "codecs": {
                    name: {"bytes_per_passage": size, "bytes": size * passages} for name, size in self.codecs.items()
                },
            },
            "decoder_cache_bytes": self.cache_bytes,
            "decoder_step_bytes": asdict(self.step_bytes),
        }
        if self.counted is not None and self.counted_macs is not None:
            difference = self.counted_macs / self.our_macs - 1
            value["counted"] = {
                "macs": self.counted_macs, "stages": _stages(self.counted), "relative_difference": difference
            }
        if self.floors is not None:
            value["target"] = _target(self.floors)
        return value


def cost_report(request: CostRequest) -> CostReport:
    """Compute what was asked for. Raises what `resolve` raises, OptionError for a target, BundleError for a graph."""
    target = None if request.target is None else read_target(request.target)
    resolved = resolve(request)
    model, workload = resolved.model, resolved.workload
    macs = passage_macs(model, workload)
    floors = None
    if target is not None:
        floors = TargetFloors(
            config_label("target", str(request.target)), target,
            {precision: stage_floors(model, workload, target, precision) for precision in PRECISIONS},
            {
                precision: 2 * macs * workload.corpus_passages / (getattr(target.peak_tops, precision) * 1e12)
                for precision in PRECISIONS
            },
        )
    return CostReport(
        model=model,
        workload=workload,
        papers={name: paper_stages(model, name, workload) for name in PAPER_ARCHITECTURES},
        ours=stage_costs(model, workload),
        counted=_counted(resolved),
        passage_macs=macs,
        codecs=store_codecs(model, workload.passage_tokens),
        cache_bytes=decoder_cache_bytes(model, workload),
        step_bytes=step_bytes(model, workload),
        figure_2=check_figure_2(workload.answer_tokens),
        floors=floors,
    )


@dataclass(frozen=True)
class QuestionCost:
    """Multiply-adds of one question in our graphs, and by the paper's formula for the architecture."""

    macs: int
    paper_macs: int

    @property
    def samples_per_tflop(self) -> float:
        """Questions for 10**12 multiply-adds in our graphs."""
        return samples_per_tflop(self.macs)

    @property
    def paper_samples_per_tflop(self) -> float:
        """The same by the paper's formula."""
        return samples_per_tflop(self.paper_macs)


def question_cost(name: str, shape: ModelShape, forms: Forms, *, k: int, m: int | None) -> QuestionCost:
    """What `cost --bundle` says of a model in these forms, with its own lengths, at k retrieved and m selected.

    `m` None: the model's own. Raises OptionError for counts that no model takes.
    """
    workload = _workload(CostRequest(k=k, m=m), shape)
    model = model_from_shape(name, shape, forms, workload)
    return QuestionCost(
        sum(stage.macs for stage in stage_costs(model, workload).values()),
        sum(paper_stages(model, shape.architecture, workload).values()),
    )


def _counted(resolved: Resolved) -> dict[str, StageCost] | None:
    if resolved.bundle is None:
        return None
    model, workload, bundle = resolved.model, resolved.workload, resolved.bundle
    graphs = bundle.manifest.stages(model.codec)
    return {
        name: StageCost(cost.runs, count_graph(bundle.graph_path(graphs[name]), run_dims(model, workload, name)))
        for name, cost in stage_costs(model, workload).items()
    }


def _stages(stages: dict[str, StageCost]) -> dict[str, dict[str, int]]:
    return {
        name: {"macs": stage.macs, "runs": stage.runs, "macs_per_run": stage.macs_per_run}
        for name, stage in stages.items()
    }


def _figure(check: FigureCheck) -> dict[str, Any]:
    return {
        "answer_tokens": check.answer_tokens,
        **{
            name: {"k": k, "figure": figure, "formula": check.computed[name], "residual": check.residuals[name]}
            for name, (k, _, figure) in FIGURE_2.items()
        },
        "ratio_errors": check.ratio_errors,
        "fit": {"answer_tokens": check.fitted_answer_tokens, "residuals": check.fitted_residuals},
    }


def _target(floors: TargetFloors) -> dict[str, Any]:
    return {
        "name": floors.name,
        **floors.target.model_dump(),
        "floors": {
            precision: {
                "ms": sum(floor.ms for floor in stages.values()),
                "stages": {
                    name: {
                        "ms": floor.ms, "arithmetic_ms": floor.arithmetic_ms, "bandwidth_ms": floor.bandwidth_ms,
                        "binds": floor.binds,
                    }
                    for name, floor in stages.items()
                },
                "precomputation_s": floors.precomputation_s[precision],
            }
            for precision, stages in floors.stages.items()
        },
    }
