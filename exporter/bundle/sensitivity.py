"""A calibrated FP32 bundle, a policy and a target -> the loss of each of its groups quantised alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calibration.questions import Question
from calibration.ranges_file import read_ranges
from calibration.scheme import TENSORRT
from calibration.sensitivity import COSTS, Progress, Quantization, Sensitivity, SensitivityOptions, sensitivity
from exporter.bundle.quantize import SCHEMES, lazy_layer
from exporter.precision import DEFAULT_POLICY, read_policy
from runtime.contract import BundleError, OptionError, read_manifest
from runtime.cpu_kind import cpu_kind

__all__ = ["bundle_sensitivity"]


def bundle_sensitivity(
    bundle: Path,
    store: Path | None,
    questions: Sequence[Question],
    options: SensitivityOptions,
    *,
    target: str,
    policy: str = DEFAULT_POLICY,
    progress: Progress,
) -> Sensitivity:
    """Measure; `target` is cpu, for this machine's kind, or tensorrt.

    Raises BundleError for a bundle that is quantised already, OptionError, and what `sensitivity` raises.
    """
    manifest = read_manifest(bundle)
    if manifest.quantization is not None:
        raise BundleError(
            f"bundle {bundle}", expected="an FP32 bundle", found="one that is quantised already",
            fix="measure the FP32 one",
        )
    unknown = sorted(set(options.graphs or ()) - set(manifest.graphs))
    if unknown:
        raise OptionError(
            "--graphs", expected=f"some of {', '.join(manifest.graphs)}", found=unknown[0], fix="choose from these"
        )
    if options.cost not in COSTS:
        raise OptionError("--cost", expected=f"one of {', '.join(COSTS)}", found=options.cost, fix="choose one")
    lazy = {name: prefix for name in manifest.graphs if (prefix := lazy_layer(manifest, name)) is not None}
    quantization = Quantization(
        table=read_ranges(bundle, manifest), scheme=TENSORRT if target == "tensorrt" else SCHEMES[cpu_kind()],
        policy=read_policy(policy), lazy_layers=lazy,
    )
    return sensitivity(bundle, store, questions, quantization, options, progress=progress)
