"""Builds what a point is made of, each part once, below OUT/parts: float bundles, stores, and bundles of a precision.

A part stands whole or not at all, so that a search that was stopped finds what it had built. All of it is what the
lines of `lines.point_lines` make.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.bundle.weight_only import WeightOnlyOptions
from glimmer_export.exporter.files.links import link_or_copy
from glimmer_export.exporter.files.publish import new_directory, swap_directory
from glimmer_export.exporter.memory import CorpusSource, build_store, convert_store
from glimmer_export.exporter.tune.lines import BUILT_CODEC, Inputs, quantize_options
from glimmer_export.exporter.tune.space import FP32, NONE, Point
from glimmer_export.runtime.contract import (
    MANIFEST,
    CodecSnr,
    file_digest,
    read_manifest,
    read_store_manifest,
    store_files,
)

__all__ = ["Built", "Workshop", "bundle_bytes", "store_bytes"]


@dataclass(frozen=True)
class Built:
    """A point's bundle and store, on disk; `bundle_bytes` are those of the graphs that answer from the store's codec.

    `store_bytes` are those of the whole corpus's store, codec arrays and texts and index included.
    """

    bundle: Path
    store: Path
    float_bundle: Path
    bundle_bytes: int
    store_bytes: int


@dataclass
class Workshop:
    """Where parts are built, and of what. `calibration` are the questions of the search.

    The corpus has `corpus_share` times the passages of `source`.
    """

    parts: Path
    inputs: Inputs
    source: CorpusSource
    calibration: tuple[Question, ...]
    corpus_share: float

    def built(self, point: Point) -> Built:
        """The point's parts; raises what the commands of its lines raise."""
        base, store = self.float_bundle(point), self.store(point)
        bundle = self._quantized(point, base)
        return Built(bundle, store, base, bundle_bytes(bundle, point["codec"]), store_bytes(store, self.corpus_share))

    def float_bundle(self, point: Point) -> Path:
        """The float graphs in a point's forms, for every codec."""
        stage_a, cross = (None if point[name] is None else str(point[name]) for name in ("stage_a", "cross_attention"))
        place = self.parts / f"float-{stage_a or 'no'}-{cross}"
        if not place.exists():
            forms = FormOptions(stage_a, str(cross), codecs=self.inputs.codecs or None)
            export_bundle(self.inputs.checkpoint, place, forms)
        return place

    def store(self, point: Point) -> Path:
        """The store in a point's codec, under its index."""
        codec, index = point["codec"], str(point["index"])
        place = self.parts / f"store-{codec or 'texts'}-{index}"
        if not place.exists():
            if codec in (None, BUILT_CODEC):
                build_store(
                    self.float_bundle(point), self.source, place, codec=None if codec is None else str(codec),
                    index=index,
                )
            else:
                convert_store(self.store(point.having("codec", BUILT_CODEC)), place, str(codec))
        return place

    def snr(self, point: Point) -> CodecSnr | None:
        """How well a point's codec keeps the memory; None where there is none."""
        return read_store_manifest(self.store(point)).codec_snr

    def calibrated(self, point: Point) -> Path:
        """The float bundle with the ranges of the search's questions, read from the point's store."""
        base, store = self.float_bundle(point), self.store(point)
        place = self.parts / f"{base.name}-{point['codec']}-{point['index']}-calibrated"
        if not place.exists():
            with new_directory(place) as work:
                copy = work / "bundle"
                shutil.copytree(base, copy, copy_function=link_or_copy)
                calibrate_bundle(
                    copy, store, self.calibration,
                    CalibrationOptions(samples=self.inputs.samples, given=self.inputs.given),
                )
                swap_directory(copy, place)
        return place

    def _quantized(self, point: Point, base: Path) -> Path:
        if quantize_options(self.inputs, point) is None:
            return base
        precision, few = str(point["precision"]), str(point["weight_only"])
        needs_ranges = precision != FP32
        source = self.calibrated(point) if needs_ranges else base
        parts = [source.name, precision, str(point["method"]) if needs_ranges else "", few]
        place = self.parts / "-".join(filter(None, parts))
        if not place.exists():
            options = QuantizeOptions(
                precision=FP32, target=self.inputs.quantize_for, policy=self.inputs.policy,
                gpu=self.inputs.target if self.inputs.on_gpu else None,
                weight_only=None if few == NONE else WeightOnlyOptions(few),
            )
            if needs_ranges:
                given = _by_option(self.inputs.ladder[precision])
                options = replace(
                    options, precision=given["--precision"][0], keep=given.get("--keep", ()),
                    graphs=tuple(given["--graphs"][0].split(",")) if "--graphs" in given else None,
                    method=str(point["method"]),
                )
            quantize_bundle(source, place, options)
        return place

    def graph_digests(self, point: Point) -> list[str]:
        """Of the files of a point's graphs: what is the same here computes the same."""
        return [file.sha256 for file in read_manifest(self.built(point).bundle).graph_files()]

    def digests(self, point: Point) -> dict[str, str]:
        """Of the manifests of a point's bundle and store, which have the digests of all their files."""
        built = self.built(point)
        return {
            "bundle": file_digest(built.bundle / MANIFEST), "store": file_digest(built.store / MANIFEST),
        }


def _by_option(words: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Options with their values, each in the order in which they stand."""
    found: dict[str, tuple[str, ...]] = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        found[option] = (*found.get(option, ()), value)
    return found


def bundle_bytes(bundle: Path, codec: object) -> int:
    """Of the graphs that answer from a store of this codec, and the weights and the tokenizer."""
    manifest = read_manifest(bundle)
    graphs = manifest.stages(None if codec is None else str(codec)).values()
    files = [file for name in graphs for file in manifest.graphs[name].files]
    files += [file for file in (manifest.weights, manifest.tokenizer) if file is not None]
    return sum(file.bytes for file in files)


def store_bytes(store: Path, corpus_share: float) -> int:
    """Of all files that the manifest names, were there `corpus_share` times the passages; codec arrays stand once."""
    manifest = read_store_manifest(store)
    arrays = 0 if manifest.codec_arrays is None else manifest.codec_arrays.bytes
    return arrays + round((sum(file.bytes for file in store_files(store, manifest)) - arrays) * corpus_share)
