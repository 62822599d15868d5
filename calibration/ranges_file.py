"""The table of ranges on disk, and what a table that was read must satisfy: numbers in JSON, arrays in safetensors.

    calibration/ranges.json         this file's TableRecord
    calibration/ranges.safetensors  histograms (bins,) int32, int64 where counts need it, as `histogram/N`, and
                                    channel_amax (channels,) float32 as `channel_amax/N`, by the numbers that
                                    ranges.json gives them; equal arrays once
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.calibrators import calibrator, magnitude_percentile
from glimmer_export.calibration.histogram import BINS
from glimmer_export.calibration.ranges import GraphRanges, RangeTable, TensorRange
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import BundleManifest, CalibrationError, OptionError, record_to_json
from glimmer_export.runtime.contract.records import FileKind, read_record

__all__ = [
    "FIX", "PERCENTILES", "RANGES_SCHEMA_VERSION", "check_table", "check_tensor", "codec_of_graphs", "read_ranges",
    "write_ranges",
]  # fmt: skip


def check_tensor(
    tensor: TensorRange, percentiles: Mapping[str, float], clipped: float, subject: str, fix: str
) -> None:
    """Raise CalibrationError if a tensor's numbers contradict each other.

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
    """Raise CalibrationError if a table is of other graphs than the manifest has for a codec, or of no samples."""
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
    """The codec of the memory that these graphs read; the bundle's first if they are of none, or of several."""
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


RANGES_SCHEMA_VERSION = 2
RANGES_FILE = FileKind("glimmer-ranges", RANGES_SCHEMA_VERSION, oldest=1)
TABLE, ARRAYS = "calibration/ranges.json", "calibration/ranges.safetensors"
PERCENTILES = (50.0, 99.0, 99.9, 99.99, 99.999)
FIX = "calibrate the bundle again with `glimmer-export calibrate`"


@dataclass(frozen=True)
class TensorRecord:
    """One tensor; `percentiles` are of the magnitudes, `amax` is by the table's method. Both only tell a reader."""

    minimum: float
    maximum: float
    count: int
    limit: float
    percentiles: dict[str, float]
    amax: float
    histogram: int
    channel_amax: int | None


@dataclass(frozen=True)
class TableRecord:
    """`ranges.json`."""

    format: str = field(default=RANGES_FILE.format, kw_only=True)
    schema_version: int
    method: str
    samples: int
    graph_digests: dict[str, str]
    warnings: tuple[str, ...]
    graphs: dict[str, dict[str, TensorRecord]]


def write_ranges(bundle: Path, table: RangeTable) -> tuple[Path, ...]:
    """Write a table below a bundle's directory; returns its files. Equal tables give equal bytes."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    numbers: dict[tuple[str, bytes], int] = {}

    def number(kind: str, values: NDArray[Any]) -> int:
        key = (kind, values.tobytes())
        if key not in numbers:
            numbers[key] = len(numbers)
            arrays[f"{kind}/{numbers[key]}"] = values
        return numbers[key]

    method = calibrator(table.method)
    amax: dict[tuple[int, float, float, float], float] = {}

    def record(tensor: TensorRange) -> TensorRecord:
        narrow = np.int32 if tensor.count <= np.iinfo(np.int32).max else np.int64
        histogram = number("histogram", tensor.histogram.astype(narrow))
        # A tensor's copies share their numbers; equal counts alone may be of another limit.
        same = (histogram, tensor.limit, tensor.minimum, tensor.maximum)
        if same not in amax:
            amax[same] = method.amax(tensor)
        return TensorRecord(
            minimum=tensor.minimum,
            maximum=tensor.maximum,
            count=tensor.count,
            limit=tensor.limit,
            percentiles={f"{percent:g}": magnitude_percentile(tensor, percent) for percent in PERCENTILES},
            amax=amax[same],
            histogram=histogram,
            channel_amax=None if tensor.channel_amax is None else number("channel_amax", tensor.channel_amax),
        )

    graphs = {graph: {name: record(item) for name, item in tensors.items()} for graph, tensors in table.graphs.items()}
    (bundle / TABLE).parent.mkdir(exist_ok=True)
    (bundle / ARRAYS).write_bytes(save(arrays))  # the library's own file would be the user's alone
    content = TableRecord(
        RANGES_SCHEMA_VERSION, table.method, table.samples, table.graph_digests, table.warnings, graphs
    )
    (bundle / TABLE).write_text(record_to_json(content), encoding="utf-8")
    return bundle / TABLE, bundle / ARRAYS


def read_ranges(bundle: Path, manifest: BundleManifest) -> RangeTable:
    """The table of an opened bundle, checked against its own arrays and the bundle's graphs.

    Raises CalibrationError: none there, of another version, of other graphs, or damaged in any way.
    """
    entries = {entry.path: entry for entry in manifest.calibration}
    if set(entries) != {TABLE, ARRAYS}:
        raise CalibrationError(
            f"bundle {bundle}", expected=f"a table of ranges, {TABLE} and {ARRAYS}",
            found=", ".join(entries) or "none", fix=FIX,
        )
    for entry in entries.values():
        verify_file(bundle, entry, error=CalibrationError, subject=f"bundle {bundle}", fix=FIX)
    subject = f"bundle {bundle}, {TABLE}"
    record = _record(bundle / TABLE, subject)
    arrays = _arrays(bundle / ARRAYS, record)
    graphs: dict[str, GraphRanges] = {}
    for graph, tensors in record.graphs.items():
        graphs[graph] = {}
        for name, tensor in tensors.items():
            channels = None if tensor.channel_amax is None else arrays[f"channel_amax/{tensor.channel_amax}"]
            histogram = arrays[f"histogram/{tensor.histogram}"]
            found = TensorRange(
                tensor.minimum, tensor.maximum, tensor.count, tensor.limit, histogram, channels
            )
            check_tensor(found, tensor.percentiles, tensor.amax, f"{subject}, graph {graph}, tensor {name}", FIX)
            graphs[graph][name] = found
    table = RangeTable(record.method, record.samples, record.graph_digests, graphs, record.warnings)
    check_table(table, manifest, subject, FIX)
    return table


def _record(path: Path, subject: str) -> TableRecord:
    record = read_record(path, RANGES_FILE, TableRecord, error=CalibrationError, subject=subject, fix=FIX)
    try:
        calibrator(record.method)
    except OptionError as reason:
        raise CalibrationError(
            f"{subject}, method", expected=reason.expected, found=repr(record.method), fix=FIX
        ) from None
    return record


def _arrays(path: Path, record: TableRecord) -> dict[str, NDArray[Any]]:
    """The arrays that the record names, each of the type and size it must have; nothing is read before that is known.

    Raises CalibrationError: no safetensors file, other arrays in it, another type or shape.
    """
    from glimmer_export.runtime.array_files import SafetensorsFile

    def refused(reason: str) -> CalibrationError:
        return CalibrationError(str(path), expected="a safetensors file", found=reason, fix=FIX)

    tensors = [tensor for graph in record.graphs.values() for tensor in graph.values()]
    names = {f"histogram/{tensor.histogram}" for tensor in tensors}
    names |= {f"channel_amax/{tensor.channel_amax}" for tensor in tensors if tensor.channel_amax is not None}
    file = SafetensorsFile(path, refused)
    if names != set(file.names):
        odd = sorted(names.symmetric_difference(file.names))
        raise CalibrationError(
            str(path), expected="the arrays that ranges.json names", found=f"{odd[0]} in one alone", fix=FIX
        )
    for name in sorted(names):
        dtype, shape = file.dtype(name), list(file.shape(name))
        if name.startswith("histogram/"):
            right, expected = dtype in ("I32", "I64") and shape == [BINS], f"I32 or I64 [{BINS}]"
        else:
            right, expected = dtype == "F32" and len(shape) == 1 and math.prod(shape) > 0, "F32 [channels]"
        if not right:
            raise CalibrationError(f"{path}, array {name}", expected=expected, found=f"{dtype} {shape}", fix=FIX)
    # Widened here, once for all tensors that share one: a table may name it a million times.
    return {
        name: file.tensor(name).astype(np.int64 if name.startswith("histogram/") else np.float32)
        for name in sorted(names)
    }
