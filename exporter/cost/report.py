"""Everything that `glimmer-export cost` says, put together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from glimmer_export.exporter.cost.count import count_graph
from glimmer_export.exporter.cost.dims import run_dims
from glimmer_export.exporter.cost.figure_2 import FIGURE_2, FigureCheck, check_figure_2, samples_per_tflop
from glimmer_export.exporter.cost.model import CostModel
from glimmer_export.exporter.cost.ours import StageCost, passage_macs, stage_costs
from glimmer_export.exporter.cost.papers import PAPER_ARCHITECTURES, paper_stages
from glimmer_export.exporter.cost.request import CostRequest, Resolved, resolve
from glimmer_export.exporter.cost.roofline import Floor, StepBytes, stage_floors, step_bytes
from glimmer_export.exporter.cost.storage import decoder_cache_bytes, store_codecs
from glimmer_export.exporter.cost.workload import Workload
from glimmer_export.exporter.targets import PRECISIONS, Target, read_target

__all__ = ["CONVENTION", "CostReport", "TargetFloors", "cost_report"]

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
        """The report; `counted` and `target` stand in it only where a bundle or a target was named."""
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
    """Reckon what was asked for. Raises what `resolve` raises, OptionError for a target, BundleError for a graph."""
    target = None if request.target is None else read_target(request.target)
    resolved = resolve(request)
    model, workload = resolved.model, resolved.workload
    macs = passage_macs(model, workload)
    floors = None
    if target is not None:
        floors = TargetFloors(
            str(request.target), target,
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
