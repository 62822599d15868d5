"""What a table of ranges that was read must satisfy."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping

import numpy as np

from glimmer_export.calibration.calibrators.percentile import magnitude_percentile
from glimmer_export.calibration.ranges import RangeTable, TensorRange
from glimmer_export.runtime.contract import BundleManifest, CalibrationError

__all__ = ["check_table", "check_tensor", "codec_of_graphs"]


def check_tensor(
    tensor: TensorRange, percentiles: Mapping[str, float], clipped: float, subject: str, fix: str
) -> None:
    """Raise CalibrationError where a tensor's numbers contradict each other.

    `percentiles` and `clipped`, the amax by the table's method, are what the file shows to a reader.
    """
    numbers = (tensor.minimum, tensor.maximum, tensor.limit)
    # A comparison, as JSON's integers may be beyond every float.
    if not all(abs(number) <= sys.float_info.max for number in numbers):
        raise CalibrationError(subject, expected="finite numbers", found=repr(numbers)[:80], fix=fix)
    if tensor.minimum > tensor.maximum:
        raise CalibrationError(
            subject, expected="a minimum up to the maximum", found=f"{tensor.minimum} above {tensor.maximum}", fix=fix
        )
    if tensor.limit <= 0 or math.frexp(tensor.limit)[0] != 0.5 or tensor.limit <= tensor.amax:
        raise CalibrationError(
            f"{subject}, limit", expected=f"a power of two above {tensor.amax}", found=str(tensor.limit), fix=fix
        )
    if bool((tensor.histogram < 0).any()):
        raise CalibrationError(f"{subject}, histogram", expected="counts", found="a negative number", fix=fix)
    # Python's integers: a sum of damaged counts may pass what int64 holds.
    counted = sum(tensor.histogram.tolist())
    if tensor.count <= 0 or counted != tensor.count:
        raise CalibrationError(
            f"{subject}, histogram", expected=f"{tensor.count} values", found=str(counted), fix=fix
        )
    _check_channels(tensor, subject, fix)
    for percent, value in percentiles.items():
        if not _is_percent(percent) or value != magnitude_percentile(tensor, float(percent)):
            raise CalibrationError(
                f"{subject}, percentile {percent}", expected="that of its histogram", found=str(value), fix=fix
            )
    if not 0 <= clipped <= tensor.amax:
        raise CalibrationError(f"{subject}, amax", expected=f"0 to {tensor.amax}", found=str(clipped), fix=fix)


def check_table(table: RangeTable, manifest: BundleManifest, subject: str, fix: str) -> None:
    """Raise CalibrationError where a table is of other graphs than the manifest has for a codec, or of no samples."""
    graphs = manifest.graphs_for(codec_of_graphs(table.graphs, manifest))
    expected = {name: manifest.graphs[name].files[0].sha256 for name in graphs}
    for name in sorted({*expected, *table.graph_digests, *table.graphs}):
        found = table.graph_digests.get(name)
        if found is None or found != expected.get(name) or name not in table.graphs:
            raise CalibrationError(
                f"{subject}, graph {name}", expected=f"ranges of the graph {expected.get(name)}",
                found=f"of {found}" if name in table.graphs else "none", fix=fix,
            )
    if table.samples <= 0:
        raise CalibrationError(f"{subject}, samples", expected="at least one", found=str(table.samples), fix=fix)


def codec_of_graphs(graphs: Collection[str], manifest: BundleManifest) -> str | None:
    """The codec of the memory that these graphs read; the bundle's first where they are of none, or of several."""
    codecs = [codec for codec in manifest.codecs if set(manifest.graphs_for(codec)) == set(graphs)]
    return next(iter([*codecs, *manifest.codecs]), None)


def _check_channels(tensor: TensorRange, subject: str, fix: str) -> None:
    channels = tensor.channel_amax
    if channels is None:
        return
    if not bool(np.isfinite(channels).all()) or bool((channels < 0).any()) or float(channels.max()) != tensor.amax:
        raise CalibrationError(
            f"{subject}, channel_amax", expected=f"magnitudes up to {tensor.amax}, the tensor's own",
            found=f"{channels.min()} to {channels.max()}", fix=fix,
        )


def _is_percent(text: str) -> bool:
    try:
        return 0 <= float(text) <= 100
    except ValueError:
        return False
