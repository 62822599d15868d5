"""A calibrated FP32 bundle, a policy and a target -> the loss of each of its groups quantised alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from glimmer_export.calibration import COSTS
from glimmer_export.calibration.losses import Losses
from glimmer_export.calibration.policy import DEFAULT_POLICY, Policy
from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.ranges_file import codec_of_graphs, read_ranges
from glimmer_export.calibration.scheme import TENSORRT
from glimmer_export.calibration.sensitivity import (
    Progress,
    Quantization,
    Sensitivity,
    SensitivityOptions,
    sensitivity,
)
from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.bundle.quantize import SCHEMES, lazy_layer
from glimmer_export.exporter.bundle.weight_only import (
    GPTQ,
    WEIGHT_GRAPHS,
    WeightOnlyOptions,
    check_weight_only_options,
)
from glimmer_export.exporter.config.read import read_config
from glimmer_export.runtime.contract import (
    MEMORY_ENCODER,
    BundleError,
    OptionError,
    read_manifest,
    stage_of,
)
from glimmer_export.runtime.cpu_kind import cpu_kind

__all__ = ["SensitivityReport", "bundle_sensitivity"]

STORE_NOTE = (
    "the store stays as it was built: the memory encoder's groups are felt in the question's states alone, and a store "
    "that a quantised encoder builds loses more"
)


@dataclass(frozen=True)
class SensitivityReport:
    """What was measured, of what, and for which budget; `weight_only` int4 where weights alone were quantised."""

    bundle: str
    target: str
    policy: str
    budget: float
    cost: str
    notes: tuple[str, ...]
    sensitivity: Sensitivity
    weight_only: str | None = None

    def together(self) -> list[tuple[str, Losses, tuple[float | None, float]]]:
        """What was measured together: its name, its losses, and the sums of its groups' score and logit noise."""
        found, sums = self.sensitivity, self.sensitivity.predicted
        return [
            ("everything", found.everything, sums["everything"]),
            ("what the policy leaves", found.policy, sums["policy"]),
            ("all but this list", found.without_kept, sums["without_kept"]),
        ]

    def yaml(self) -> str:
        """The lines of a policy that keep the list, and nothing else, in float; of weights alone, in 8 bits."""
        keep = self.sensitivity.keep
        lines = [f"  - '{item.pattern}'" for item in keep]
        if self.weight_only is not None:
            return "\n".join(["eight_bit:" if lines else "eight_bit: []", *lines])
        return "\n".join(["lazy_layer: true", "keep:" if lines else "keep: []", *lines])

    def to_json(self) -> dict[str, Any]:
        """Groups by loss, then what was measured together, then the list."""
        found = self.sensitivity
        return {
            "bundle": self.bundle, "target": self.target, "policy": self.policy, "weight_only": self.weight_only,
            "questions": found.questions,
            "not_answered": found.not_answered, "notes": list(self.notes),
            "groups": [
                {
                    "group": row.group.pattern, "graph": row.group.graph, "kind": row.group.kind,
                    "products": list(row.group.nodes), **_losses(row.losses), "work": row.work, "weights": row.weights,
                    "kept_by_policy": row.kept_by_policy,
                }
                for row in found.groups
            ],
            "together": {
                name: {"measured": _losses(losses), "sum": {"score_noise": scores, "logit_noise": logits}}
                for name, losses, (scores, logits) in self.together()
            },
            "budget": self.budget, "cost": self.cost,
            "keep": [{"group": item.pattern} | _without_pattern(asdict(item)) for item in found.keep],
            "yaml": self.yaml(),
        }


def _losses(losses: Losses) -> dict[str, float | None]:
    return {**asdict(losses), "loss": losses.loss}


def _without_pattern(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "pattern"}


def bundle_sensitivity(
    bundle: Path,
    store: Path | None,
    questions: Sequence[Question],
    options: SensitivityOptions,
    *,
    target: str,
    policy: str = DEFAULT_POLICY,
    weight_only: WeightOnlyOptions | None = None,
    progress: Progress,
) -> SensitivityReport:
    """Measure; `target` is cpu, for this machine's kind, or tensorrt.

    With `weight_only` groups have weights of 4 bits, and what is kept has 8; its graphs are measured.

    Raises BundleError for a bundle that is quantised already, OptionError, and what `sensitivity` raises.
    """
    manifest = read_manifest(bundle)
    if manifest.quantization is not None:
        raise BundleError(
            f"bundle {bundle}", expected="an FP32 bundle", found="one that is quantised already",
            fix="measure the FP32 one",
        )
    stages = sorted({stage_of(name) for name in manifest.graphs})
    unknown = sorted(set(options.graphs or ()) - set(stages))
    if unknown:
        raise OptionError(
            "--graphs", expected=f"some of {', '.join(stages)}", found=unknown[0], fix="choose from these"
        )
    if weight_only is not None:
        options = _of_weights(options, weight_only, stages, target)
    if options.cost not in COSTS:
        raise OptionError("--cost", expected=f"one of {', '.join(COSTS)}", found=options.cost, fix="choose one")
    lazy = {name: prefix for name in stages if (prefix := lazy_layer(manifest, name)) is not None}
    table = read_ranges(bundle, manifest)
    answering = manifest.stages(codec_of_graphs(table.graphs, manifest)).values()
    quantization = Quantization(
        table=replace(table, graphs={name: table.graphs[name] for name in answering}),
        scheme=TENSORRT if target == "tensorrt" else SCHEMES[cpu_kind()],
        policy=read_config("policy", policy, Policy), lazy_layers=lazy,
        weight_only=None if weight_only is None else weight_only.narrow(),
    )
    found = sensitivity(bundle, store, questions, quantization, options, progress=progress)
    notes: tuple[str, ...] = (STORE_NOTE,) if any(row.group.graph == MEMORY_ENCODER for row in found.groups) else ()
    if found.not_answered:
        notes += (f"{found.not_answered} questions could not be answered and are left out",)
    taken = spread(range(len(questions)), options.samples)
    skipped = sum(questions[index].skipped for index in taken) if options.given else 0
    if skipped:
        notes += (f"{skipped} passages without text were skipped",)
    bits = None if weight_only is None else weight_only.bits
    return SensitivityReport(str(bundle), target, policy, options.budget, options.cost, notes, found, bits)


def _of_weights(
    options: SensitivityOptions, weight_only: WeightOnlyOptions, stages: Sequence[str], target: str
) -> SensitivityOptions:
    """Of the decoder's graphs if no others are named; raises OptionError for what does not go together."""
    if weight_only.bits != "int4" or weight_only.algorithm == GPTQ:
        raise OptionError(
            "--weight-only", expected="int4, by an algorithm that asks no questions",
            found=f"{weight_only.bits}, {weight_only.algorithm}", fix="choose int4, and k-quant or rtn",
        )
    check_weight_only_options(weight_only, stages, precision="fp32", target=target)
    return replace(options, graphs=options.graphs or tuple(name for name in stages if name in WEIGHT_GRAPHS))
